"""The templates of pages that are written from results."""

from __future__ import annotations

from pathlib import Path

import jinja2


def environment() -> jinja2.Environment:
    """For pages in Markdown; a name that a template does not get is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True,
    )  # fmt: skip
