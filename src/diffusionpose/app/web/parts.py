"""How the page looks. Fonts are those of the visitor's system: nothing is fetched from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
MONOSPACE = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

# Put into the page's head as it is: what goes through gradio's own `css` loses its media queries.
CSS = """
.gradio-container { max-width: 1240px !important; width: 100%; margin: 0 auto !important; }
.gradio-container .app { padding: 16px 24px !important; }
.gradio-container main { width: 100%; padding: 0 !important; }
.html-container { padding: 0 !important; }
#head h1 { font-size: 26px; font-weight: 700; letter-spacing: -0.02em; margin: 0; }
#head p { margin: 2px 0 4px; opacity: 0.75; font-size: 15px; text-wrap: pretty; }
#picture img { cursor: crosshair; max-height: 460px; }
#overlay img, #heat img { max-height: 560px; }
:is(#picture, #overlay, #heat):fullscreen img { max-height: none; }

.notice { margin: 0 !important; padding: 10px 14px; border-radius: 4px; font-size: 14px; line-height: 1.4;
  background: var(--background-fill-primary); border-left: 4px solid var(--color-accent); }
.notice.alert { background: #fdecec; border-color: #d64545; color: #8f1d1d; }
.dark .notice.alert { background: #4a1d1d; border-color: #d64545; color: #ffd9d9; }

#tools, #examples, .files { gap: 8px; flex-wrap: nowrap; }
#tools button, #examples button { min-width: 0 !important; }

.waiting { border: 2px dashed var(--border-color-primary); border-radius: 14px; }
.waiting p { padding: 190px 40px; text-align: center; color: var(--body-text-color-subdued); margin: 0;
  text-wrap: balance; }
#clip_bar:not(:has(progress)) { display: none; }
#clip_bar progress { width: 100%; height: 14px; accent-color: var(--color-accent); }
#clip_notice .summary { margin: 6px 0 0 18px !important; }
#clip .file-preview-holder { padding-top: 22px; }
#clip_video .icon-button-wrapper:not(:has(*)) { display: none; }
#clip_video video { max-height: 560px; }

.summary { margin: 0 0 8px !important; color: var(--body-text-color-subdued); font-size: 14px; }
table.confidence { width: 100% !important; border-collapse: collapse; font-size: 14px; margin: 0 !important; }
table.confidence, table.confidence :is(tbody, tr, th, td) { border: 0 !important;
  background: none !important; }
table.confidence th { text-align: left; font-weight: 500; white-space: nowrap;
  padding: 5px 12px 5px 0 !important; }
table.confidence td { padding: 5px 0 5px 12px !important; font-variant-numeric: tabular-nums; }
table.confidence td.bar { width: 100%; padding: 5px 0 !important; }
table.confidence td.bar div { height: 12px; border-radius: 6px; min-width: 2px;
  box-shadow: inset 0 0 0 1px rgba(16, 16, 24, 0.25); }
table.confidence tr.pale { opacity: 0.4; }

#steps, #steps .grid-wrap { min-height: 0 !important; height: auto !important; max-height: none !important; }
#steps .thumbnail-lg { aspect-ratio: auto !important; height: auto !important; display: block; }
#steps .thumbnail-lg img { height: auto !important; padding-bottom: 30px; }
#steps .caption-label { left: 0; right: 0; bottom: 0; max-width: none !important; text-align: center;
  border: 0 !important; background: none !important; }
#steps .grid-container { grid-template-rows: none !important; grid-auto-rows: auto !important; }

@media (max-width: 640px) {
  .gradio-container { padding: 0 !important; }
  .gradio-container .app { padding: 12px !important; }
  .waiting p { padding: 40px 24px; }
  #steps .grid-container { grid-template-columns: 1fr !important; }
  button[role="tab"] { padding: 0 10px !important; }
  #tools button, #examples button { padding-left: 4px; padding-right: 4px; }
}
footer { display: none !important; }
"""


# How answers, by the names of the page's parts, reach the parts themselves; and who waits for whom

Parts = dict[str, Any]

ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "pictures", "concurrency_limit": 1}  # bounds the memory
# Where the page is one narrow column, results appear below what is seen; a complaint stands above them.
SCROLL = """() => setTimeout(() => {{
  if (window.innerWidth < 800 && !document.querySelector("#{notice} .alert"))
    document.getElementById("{results}")?.scrollIntoView({{behavior: "smooth"}});
}}, 300)"""
QUICK: dict[str, Any] = {"concurrency_limit": 4, "show_progress": "hidden", "api_visibility": "private"}


def on(
    parts: Parts,
    event: Callable[..., Any],
    answer: Callable[..., Parts],
    inputs: list[Any],
    outputs: Iterable[str],
    **options: Any,
) -> Any:
    """Let an answer, by the names of parts, follow an event."""

    def called(*values: Any) -> dict[Any, Any]:
        return named(parts, answer(*values))

    return event(called, inputs, [parts[name] for name in outputs], **options)


def named(parts: Parts, answer: Parts) -> dict[Any, Any]:
    """An answer with the parts themselves in the place of their names."""
    return {parts[name]: value for name, value in answer.items()}
