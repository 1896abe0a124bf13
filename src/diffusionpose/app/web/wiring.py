"""How answers, by the names of the page's parts, reach the parts themselves; and who waits for whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

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
