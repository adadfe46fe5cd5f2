"""The table of perplexities in docs/FAMILIES.md."""

from __future__ import annotations

import csv
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAX_DIFFERENCE = 0.3  # percent


def test_the_table_is_that_of_the_results():
    """Every row as it was found, and none beyond what is asked."""
    with open(ROOT / "results" / "families" / "perplexity.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    page = (ROOT / "docs" / "FAMILIES.md").read_text("utf-8")
    lines = [list(rows[0]), *(row.values() for row in rows)]
    for cells in lines:
        assert f"| {' | '.join(cells)} |\n" in page
    for row in rows:
        assert abs(float(row["difference"].rstrip("%"))) < MAX_DIFFERENCE, row["model"]
