"""How the page looks. Fonts are those of the visitor's system: nothing is fetched from elsewhere."""

from __future__ import annotations

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
MONOSPACE = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

CSS = """
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; }
#head { padding: 10px 2px 2px; }
#head h1 { font-size: 26px; font-weight: 700; letter-spacing: -0.02em; margin: 0; }
#head p { margin: 2px 0 0; color: var(--body-text-color-subdued); font-size: 15px; }
.notice { margin: 0; padding: 10px 14px; border-radius: 10px; font-size: 14px; line-height: 1.4;
  background: var(--background-fill-secondary); border: 1px solid var(--border-color-primary); }
.notice.alert { background: #fdecec; border-color: #f3b4b4; color: #8f1d1d; }
.dark .notice.alert { background: #4a1d1d; border-color: #7f3030; color: #ffd9d9; }
#picture img { cursor: crosshair; }
#waiting { display: flex; align-items: center; justify-content: center; min-height: 300px; text-align: center;
  border: 2px dashed var(--border-color-primary); border-radius: 14px; color: var(--body-text-color-subdued); }
#tools { gap: 8px; flex-wrap: nowrap; }
#tools button, #examples button { min-width: 0 !important; }
#examples { gap: 8px; align-items: center; flex-wrap: nowrap; }
.summary { margin: 0 0 8px; color: var(--body-text-color-subdued); font-size: 14px; }
table.confidence { width: 100%; border-collapse: collapse; font-size: 14px; }
table.confidence th { text-align: left; font-weight: 500; padding: 5px 12px 5px 0; white-space: nowrap; width: 1%; }
table.confidence td { padding: 5px 0 5px 12px; font-variant-numeric: tabular-nums; width: 1%; }
table.confidence td.bar { width: 98%; padding: 5px 0; }
table.confidence td.bar div { height: 12px; border-radius: 6px; min-width: 2px; }
table.confidence tr.pale { opacity: 0.4; }
footer { display: none !important; }
"""
