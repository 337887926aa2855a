"""One self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment

from sparseflow.core import replacing
from sparseflow.report.blocks import Section


def write_page(path: Path, title: str, subtitle: str, sections: Sequence[Section]) -> None:
    """Write the page whole or not at all, so that a browser may reload it while a study runs."""
    here = files("sparseflow.report")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (here / "page.html").read_text(encoding="utf-8")
    )
    style = (here / "page.css").read_text(encoding="utf-8")
    page = template.render(title=title, subtitle=subtitle, sections=sections, style=style)
    with replacing(path) as aside:
        aside.write_text(page, encoding="utf-8")
