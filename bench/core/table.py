"""One definition of a table, for a terminal, for Markdown and, by a template, for HTML."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import rich.table
from rich.text import Text

_NOTHING = "-"
_STYLES = {"good": "green", "warn": "red"}


@dataclass(frozen=True)
class Cell:
    """Text, or a number with how it is written. mark: a word on how it looks; hint: on why."""

    text: str
    value: float | None = None
    mark: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """name: of its place in a page. notes: lines on what it says. groups: the group of each row."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    groups: Sequence[Any] = ()

    @property
    def numeric(self) -> list[bool]:
        """For each column, whether it is sorted by numbers."""
        return [
            any(row[i].value is not None for row in self.rows) for i in range(len(self.columns))
        ]

    def __rich__(self) -> rich.table.Table:
        """For a terminal, as rich prints it."""
        table = rich.table.Table(
            title=Text(self.title, "italic"), title_justify="left", caption_justify="left",
            caption=Text("\n".join(self.notes)) if self.notes else None,
        )  # fmt: skip
        for column, is_number in zip(self.columns, self.numeric, strict=True):
            table.add_column(column, justify="right" if is_number else "left", overflow="fold")
        for i, row in enumerate(self.rows):
            cells = (Text(each.text, _STYLES.get(each.mark, "")) for each in row)
            table.add_row(*cells, end_section=self.groups[i : i + 1] != self.groups[i + 1 : i + 2])
        return table

    @property
    def markdown(self) -> str:
        """For a page; without its title and notes."""
        rules = ["---:" if is_number else "---" for is_number in self.numeric]
        lines = [[each.text.replace("|", r"\|") for each in row] for row in self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in [[*self.columns], rules, *lines])


def number(value: Any, template: str = "{:.3g}", mark: str = "", hint: str = "") -> Cell:
    """A number as a cell; a dash for one that is not known."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        return Cell(_NOTHING)
    return Cell(template.format(value), float(value), mark, hint)


def text(value: Any) -> Cell:
    """Words as a cell; a dash for none."""
    return Cell(_NOTHING if value is None or value == "" else str(value))


def speed(value: Any) -> Cell:
    """Tokens/s and the like: 0.123, 1.20, 12.3, 123.4."""
    large = isinstance(value, int | float) and value >= 10
    return number(value, "{:.1f}" if large else "{:#.3g}")


def table(
    name: str, title: str, columns: Mapping[str, Callable[[Any], Cell]], records: Sequence[Any],
    notes: Sequence[str] = (), group: Callable[[Any], Any] | None = None, whole: bool = False,
) -> Table:  # fmt: skip
    """A row for each record, without the columns in which nothing is known, unless `whole`."""
    cells = {column: [cell(each) for each in records] for column, cell in columns.items()}
    kept = {
        column: found
        for column, found in cells.items()
        if whole or any(each.text != _NOTHING for each in found)
    }
    rows = list(zip(*kept.values(), strict=True))
    return Table(name, title, list(kept), rows, notes, [group(each) for each in records]
                 if group else ())  # fmt: skip
