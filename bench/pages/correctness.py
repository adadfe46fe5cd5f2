"""Write docs/CORRECTNESS.md: what each engine computed of the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.core.correctness import CORRECTNESS_FILE, CORRECTNESS_FORMAT
from bench.core.envelope import load_json
from bench.core.errors import ResultsError
from bench.core.table import Cell, Table, number, table, text
from bench.pages import page

_TARGET = Path(__file__).parents[2] / "docs" / "CORRECTNESS.md"


def write(folder: Path, target: Path = _TARGET) -> Path:
    """Write the page from a folder's correctness.json; ResultsError or OSError if that cannot
    be."""
    path = folder / CORRECTNESS_FILE
    found = load_json(path, "bench.correctness", CORRECTNESS_FORMAT)
    try:
        models = [{**each, "table": _table(each)} for each in found["models"]]
        return page.write(target, "correctness.md.jinja", {**found, "models": models})
    except (KeyError, TypeError) as error:
        raise ResultsError(f"{path}: no results of bench.correctness: {error}") from error


def _table(model: dict[str, Any]) -> Table:
    return table(
        "correctness", model["model"],
        {
            "engine": lambda each: text(each["engine"]),
            "rounds, besides the weights": lambda each: text(each["rounds"]),
            "perplexity": lambda each: number(each["perplexity"], "{:.5f}"),
            "same likeliest token": lambda each: _of(each["likeliest"], each["positions"]),
            "same greedy tokens": lambda each: _of(each["greedy"], each["asked"]),
        },
        model["rows"],
    )  # fmt: skip


def _of(count: int, most: int) -> Cell:
    return text(f"{count} of {most}")
