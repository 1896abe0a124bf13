"""Pose models. Start at ``diffusion_pose.py``: the paper's two algorithms."""
