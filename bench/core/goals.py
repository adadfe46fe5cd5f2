"""Figures that were asked for, beside what a run has seen of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from bench.core.table import Cell, Table, table, text

#: The unit that follows a figure, and what the figure is multiplied by; what should be small begins
#: with a space.
_UNITS = {
    "%": 100, "x": 1, " us": 1e6, " s": 1, " GB": 1e-9, " %": 100, " requests": 1, " texts": 1,
    " answers": 1, " times": 1,
}  # fmt: skip
#: Digits behind the point, where it is not two.
_DIGITS = {"%": 1, " requests": 0, " texts": 0, " answers": 0}


@dataclass(frozen=True)
class Goal:
    """A share, a ratio, a time, a size or a number of failures that was asked for: at least so
    much, of what begins with a space at most.

    seen: NaN if it could not be measured; the remark says why.
    """

    section: str
    what: str
    asked: float
    seen: float
    unit: str
    remark: str = ""

    @property
    def passed(self) -> bool:
        """Whether it is as good as asked."""
        return self.seen <= self.asked if self._is_bound else self.seen >= self.asked

    @property
    def _is_bound(self) -> bool:
        return self.unit.startswith(" ")

    @property
    def words(self) -> tuple[str, str, str]:
        """What was asked, what was seen, and the verdict."""
        factor = _UNITS[self.unit]
        bound = "<=" if self._is_bound else ">="
        return (
            f"{bound} {factor * self.asked:g}{self.unit}",
            "-"
            if isnan(self.seen)
            else f"{factor * self.seen:.{_DIGITS.get(self.unit, 2)}f}{self.unit}",
            "not measured" if isnan(self.seen) else "pass" if self.passed else "MISSED",
        )


def asked(goals: Sequence[Goal]) -> Table:
    """What was asked, what was seen."""
    columns = {
        "section": lambda each: text(each.section),
        "figure": lambda each: text(each.what),
        "asked": lambda each: Cell(each.words[0], each.asked),
        "seen": lambda each: Cell(each.words[1], each.seen),
        "": lambda each: Cell(each.words[2], mark="good" if each.passed else "warn"),
        "remark": lambda each: text(each.remark),
    }
    return table("goals", "Asked / seen", columns, goals)
