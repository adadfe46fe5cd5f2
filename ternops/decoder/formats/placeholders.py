"""What lies in the place of a file that was never fetched."""

from __future__ import annotations

from pathlib import Path

_LFS = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html")
_UNFINISHED = (".incomplete", ".part", ".partial", ".crdownload", ".download")


def check_fetched(path: Path) -> None:
    """Raises ValueError, naming the file and the remedy, for a pointer of git-lfs, a web page, or
    the beginning of a download; anything else, no file included, is left to its reader."""
    if not path.is_file():
        return
    with open(path, "rb") as file:
        start = file.read(64)
    if start.startswith(_LFS):
        raise ValueError(
            f"model: {str(path)!r} is a pointer of git-lfs, expected the file itself: git lfs pull"
        )
    if start.lstrip().lower().startswith(_PAGES):
        raise ValueError(
            f"model: {str(path)!r} is a web page, expected the file itself: download it again"
        )
    if path.name.endswith(_UNFINISHED):
        raise ValueError(f"model: {str(path)!r} is unfinished, expected a whole file")
