"""Pages that are written from results by a template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from ternops.files import replaced

_FOLDER = Path(__file__).with_name("templates")


def write(target: Path, template: str, values: dict[str, Any]) -> Path:
    """Write a template's page whole or not at all; a name that it does not get is an error.

    In HTML words are escaped. Returns `target`; raises OSError if it cannot be written.
    """
    is_html = ".html." in template
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=is_html, lstrip_blocks=is_html,
        trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    text = environment.get_template(template).render(values)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replaced(target) as temporary:
        # Whatever a file says of itself: what UTF-8 cannot hold is no reason to have no page.
        temporary.write_text(text, "utf-8", errors="replace")
    return target
