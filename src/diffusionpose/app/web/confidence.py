"""How sure the model is of each joint, as a table with bars in HTML."""

from __future__ import annotations

from html import escape

from diffusionpose.inference.drawing import COLORS, part_of
from diffusionpose.poses import Pose


def confidence_table(pose: Pose, threshold: float) -> str:
    """A row for each joint: its name, a bar in the colour it is drawn in, its score.

    Args:
        pose: of one person.
        threshold: rows of joints with a score below, which are not drawn, are pale.
    """
    rows = "".join(
        _row(joint, float(score), score >= threshold)
        for joint, score in zip(pose.skeleton.joints, pose.scores, strict=True)
    )
    sure = int((pose.scores >= threshold).sum())
    return (
        f'<p class="summary">{sure} of {pose.skeleton.num_joints} joints drawn, '
        f"score of the person {pose.score:.2f}</p>"
        f'<table class="confidence"><tbody>{rows}</tbody></table>'
    )


def _row(joint: str, score: float, drawn: bool) -> str:
    share = 100 * min(max(score, 0.0), 1.0)
    pale = "" if drawn else ' class="pale"'
    return (
        f'<tr{pale}><th scope="row">{escape(joint.replace("_", " "))}</th>'
        f'<td class="bar"><div style="width:{share:.1f}%;background:{COLORS[part_of(joint)]}"></div></td>'
        f"<td>{score:.2f}</td></tr>"
    )
