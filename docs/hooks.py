"""What mkdocs is told of this repository, whose documents link to one another and to results.

README.md and its neighbours become pages, files of results/ that documents show come along, and a
link to anything else in the repository becomes its text. A link to what is not there is an error.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
#: Page -> the file at the root that it is.
PAGES = {
    "index.md": "README.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
    "CODE_OF_CONDUCT.md": "CODE_OF_CONDUCT.md",
    "CHANGELOG.md": "CHANGELOG.md",
}
_PAGE_OF = {source: page for page, source in PAGES.items()}
_LINK = re.compile(
    r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((?!https?:|mailto:|#)([^()\s#]+)(#[^()\s]*)?\)"
)
#: Kinds of files that the site has a copy of.
_SHOWN = (".png", ".svg", ".json", ".csv")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the root, and what any page shows."""
    for page, source in PAGES.items():
        text = (ROOT / source).read_text("utf-8")
        files.append(File.generated(config, page, content=text))
    for file in list(files.documentation_pages()):
        for match in _LINK.finditer(file.content_string):
            target = _target(file.src_uri, match[3])
            if target.suffix in _SHOWN and files.get_file_from_path(str(target)) is None:
                copy = File(str(target), str(ROOT), config["site_dir"], False)
                files.append(copy)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links as the site has them."""
    here = page.file.src_uri

    def link(match: re.Match[str]) -> str:
        target = _target(here, match[3])
        name = str(target)
        name = _PAGE_OF.get(name, name.removeprefix("docs/"))
        if files.get_file_from_path(name) is None:
            return match[2]
        there = os.path.relpath(name, PurePosixPath(here).parent)
        return f"{match[1]}[{match[2]}]({there}{match[4] or ''})"

    return _LINK.sub(link, markdown)


def _target(page: str, link: str) -> PurePosixPath:
    """What a link of a page leads to, from the root of the repository; an error if nothing."""
    folder = ROOT if page in PAGES else ROOT / "docs" / PurePosixPath(page).parent
    path = Path(os.path.normpath(folder / link))
    if not path.exists() or not path.is_relative_to(ROOT):
        raise PluginError(f"{page}: {link} leads nowhere")
    return PurePosixPath(path.relative_to(ROOT).as_posix())
