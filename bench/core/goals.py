"""Figures that were asked for, beside what a run has seen of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

#: What is written behind a figure and by what it is multiplied before; times begin with a space.
_UNITS = {"%": 100, "x": 1, " us": 1e6, " s": 1}


@dataclass(frozen=True)
class Figure:
    """A share, a ratio or a time that was asked for: at least so much, of a time at most."""

    section: str
    what: str
    asked: float
    seen: float
    unit: str
    remark: str = ""

    @property
    def passed(self) -> bool:
        """Whether it is as good as asked."""
        return self.seen <= self.asked if self._is_time else self.seen >= self.asked

    @property
    def _is_time(self) -> bool:
        return self.unit.startswith(" ")

    @property
    def words(self) -> tuple[str, str, str]:
        """What was asked, what was seen, and the verdict."""
        factor = _UNITS[self.unit]
        bound = "<=" if self._is_time else ">="
        return (
            f"{bound} {factor * self.asked:g}{self.unit}",
            f"{factor * self.seen:.{1 if self.unit == '%' else 2}f}{self.unit}",
            "pass" if self.passed else "MISSED",
        )


def asked(figures: Sequence[Figure]) -> Table:
    """What was asked, what was seen."""
    table = Table(title="Asked / seen", title_justify="left")
    for column in ("section", "figure", "asked", "seen", "", "remark"):
        table.add_column(column, justify="right" if column in ("asked", "seen") else "left")
    for figure in figures:
        bound, seen, verdict = figure.words
        style = "green" if figure.passed else "red"
        table.add_row(figure.section, figure.what, bound, seen, Text(verdict, style), figure.remark)
    return table
