"""Draw docs/layouts: which weight each bit of a packed byte is of, as the packers say themselves.

python -m bench.layouts docs/layouts
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import cache
from html import escape
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from bench.core.command import make_parser
from bench.core.layouts import BitField, Layout, find
from bench.pages import page
from ternops.encodings import ENCODINGS, PANELS
from ternops.encodings.panels import ROWS as PANEL_ROWS
from ternops.encodings.panels import Panels
from ternops.encodings.row_groups import ROWS as GROUP_ROWS
from ternops.encodings.row_groups import RowGroups

LINE = 64  #: bytes that are drawn in a row: a cache line
_WIDTH, _LEFT = 760, 20
_CELL = (_WIDTH - 2 * _LEFT) / LINE
_BIT, _GAP = 28, 24  # of bytes that are drawn bit by bit, three beside one another


class Picture(NamedTuple):
    """A file, of which encoding, in groups or not, and of how many columns (0: a whole block)."""

    file: str
    name: str
    has_groups: bool = False
    columns: int = 0


PICTURES = (
    *(Picture(name, name) for name in ENCODINGS),
    Picture("two_bit_group", "two_bit", has_groups=True),
    Picture("two_bit_short", "two_bit", columns=10),
)


@cache
def layout_of(picture: Picture) -> Layout:
    """What is drawn: as many rows as are packed together."""
    encoding = (PANELS if picture.has_groups else ENCODINGS)[picture.name]
    if isinstance(encoding, RowGroups):
        rows, block = GROUP_ROWS, encoding.columns
    elif isinstance(encoding, Panels):
        rows, block = PANEL_ROWS, encoding.block
    else:
        rows, block = 1, LINE * round(8 / encoding.bits)
    return find(encoding, rows, picture.columns or block)


def lines_of(layout: Layout) -> int:
    """Lines of 64 bytes that one unit of the layout has."""
    encoding = layout.encoding
    if isinstance(encoding, RowGroups):
        return encoding.lines
    return encoding.planes if isinstance(encoding, Panels) else 1


def shown(layout: Layout, line: int) -> list[int]:
    """The bytes of a line that are drawn bit by bit: the first two, and the last."""
    first = line * LINE
    return sorted({first, first + 1, min(first + LINE, len(layout.bytes)) - 1})


class _Drawing:
    """Shapes, from the top down."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.y = layout, 0.0
        self.shapes: list[str] = []
        self.fields = self._fields()

    def text(self, x: float, y: float, words: str, style: str = "") -> None:
        self.shapes.append(f'<text class="{style}" x="{x:g}" y="{y:g}">{escape(words)}</text>')

    def rect(self, x: float, y: float, width: float, height: float, style: str = "") -> None:
        self.shapes.append(
            f'<rect class="{style}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"/>'
        )

    def _fields(self) -> dict[int, int]:
        """Column of the first row -> the number of the places in bytes that it has."""
        unit, places = lines_of(self.layout), dict[int, list[tuple[int, ...]]]()
        for byte, parts in enumerate(self.layout.bytes):
            for part in parts:
                for column, place in zip(part.columns, part.places, strict=True):
                    if part.row == 0:
                        own = (byte // LINE % unit, part.low, place if part.are_digits else 0)
                        places.setdefault(column, []).append(own)
        known: dict[tuple[tuple[int, ...], ...], int] = {}
        return {
            column: known.setdefault(tuple(places[column]), len(known)) for column in sorted(places)
        }

    def row(self) -> None:
        """The weights of a row, by the part of a byte that takes them."""
        columns = self.layout.columns
        self.text(_LEFT, self.y + 11, f"weights of a row: {columns}", "left quiet")
        self.y += 18
        wide = (_WIDTH - 2 * _LEFT) / columns
        for field, run in groupby(range(columns), self.fields.__getitem__):
            first, *rest = run
            last = rest[-1] if rest else first
            x, width = _LEFT + wide * first, wide * (last - first + 1)
            self.rect(x, self.y, width, 20, f"f{field % 8}")
            words = f"w{first} to w{last}" if rest else f"w{first}"
            self.text(x + width / 2, self.y + 14, words, "small" if width < 90 else "")
        self.y += 34

    def line(self, line: int) -> None:
        """A cache line: whose weights are in its bytes, and three of these bit by bit."""
        first, stop = line * LINE, min(line * LINE + LINE, len(self.layout.bytes))
        words = f"bytes {first} to {stop - 1}"
        self.text(_LEFT, self.y + 11, words, "left quiet")
        self.y += 18
        chosen = shown(self.layout, line)
        for byte in range(first, stop):
            style = "f7" if byte in chosen else ""
            self.rect(_LEFT + _CELL * (byte - first), self.y, _CELL, 16, style)
        if self.layout.rows > 1:
            self.rows(first, stop)
            self.y += 14
        self.y += 38
        for at, byte in enumerate(chosen):
            self.byte(_LEFT + at * (8 * _BIT + _GAP), self.y, byte)
        self.y += 58

    def rows(self, first: int, stop: int) -> None:
        """Below the bytes of a line, the rows that they are of."""
        bytes_ = self.layout.bytes
        for row, run in groupby(range(first, stop), lambda byte: bytes_[byte][0].row):
            found = list(run)
            middle = _LEFT + _CELL * ((found[0] + found[-1] + 1) / 2 - first)
            if len(found) > 1:
                self.text(middle, self.y + 26, f"row {row}", "small quiet")
            elif row % 8 == 0 or row == self.layout.rows - 1:
                self.text(middle, self.y + 26, str(row), "small quiet")

    def byte(self, x: float, y: float, byte: int) -> None:
        """One byte, its highest bit at the left."""
        parts = self.layout.bytes[byte]
        rows = {part.row for part in parts}
        assert len(rows) == 1
        row = f", row {min(rows)}" if self.layout.rows > 1 else ""
        self.text(x + 4 * _BIT, y - 4, f"byte {byte}{row}", "small")
        if parts[0].are_digits:
            self.digits(x, y, parts[0])
            return
        for bit in range(8):
            self.text(x + _BIT * (7.5 - bit), y + 44, str(bit), "small quiet")
        for part in parts:
            left, width = x + _BIT * (8 - part.low - part.width), _BIT * part.width
            self.rect(left, y, width, 32, f"f{self.fields[part.columns[0]] % 8}")
            middle = left + width / 2
            if part.is_sign:
                self.text(middle, y + 13, "sign", "small")
                self.text(middle, y + 25, f"{part.columns[0]}-{part.columns[-1]}", "small")
            else:
                self.text(middle, y + 20, self.number(part), "small")

    def number(self, part: BitField) -> str:
        """What is in the bits of a part: a weight's code, or the number of some weights."""
        if len(part.columns) == 1:
            return f"w{part.columns[0]}"
        terms = [
            f"{place}w{column}" if place > 1 else f"w{column}"
            for place, column in zip(part.places, part.columns, strict=True)
        ]
        words = " + ".join(terms + ([str(part.base)] if part.base else []))
        has_sign = any(each.is_sign for parts in self.layout.bytes for each in parts)
        return f"|{words}|" if has_sign else words

    def digits(self, x: float, y: float, part: BitField) -> None:
        """One number for a whole byte, whose digits are weights."""
        order = sorted(zip(part.places, part.columns, strict=True), reverse=True)
        width = 8 * _BIT / len(order)
        for at, (place, column) in enumerate(order):
            left = x + width * at
            self.rect(left, y, width, 32, f"f{self.fields[column] % 8}")
            self.text(left + width / 2, y + 13, f"{place} x", "small")
            self.text(left + width / 2, y + 25, f"w{column}", "small")
        self.text(x + 4 * _BIT, y + 44, f"the sum of these + {part.base}", "small quiet")


def _codes(layout: Layout) -> str:
    """What the bits of one weight say."""
    if any(len(part.columns) > 1 for parts in layout.bytes for part in parts):
        return ""
    values = layout.encoding.values
    if len(values) <= 4:
        pairs = [f"{value} is {code}" for code, value in enumerate(values)]
        return f"codes: {', '.join(pairs)}"
    return f"codes: {values[0]} is 0, {values[0] + 1} is 1, ... {values[-1]} is {len(values) - 1}"


def draw(picture: Picture, folder: Path) -> Path:
    """Write the picture's SVG file into a folder; OSError if that cannot be."""
    layout = layout_of(picture)
    drawing = _Drawing(layout)
    words = picture.name
    if picture.has_groups:
        words += " with a scale a group"
    elif picture.columns:
        words += f", a row of {picture.columns}"
    drawing.text(_LEFT, 24, f"{words}: {layout.encoding.bits:.4g} bits a weight", "left head")
    codes = _codes(layout)
    drawing.text(_LEFT, 40, codes, "left quiet")
    drawing.y = 52.0 if codes else 36.0
    drawing.row()
    for line in range(lines_of(layout)):
        drawing.line(line)
    values = {"width": _WIDTH, "height": round(drawing.y) + 4, "title": words}
    target = folder / f"{picture.file}.svg"
    return page.write(target, "layout.svg.jinja", {**values, "shapes": drawing.shapes})


def main(argv: Sequence[str] | None = None) -> int:
    """Draw all; 2 with one line where the folder cannot be written."""
    parser: argparse.ArgumentParser = make_parser("bench.layouts", __doc__)
    parser.add_argument("folder", type=Path, help="for the pictures: docs/layouts")
    folder = parser.parse_args(argv).folder
    try:
        for picture in PICTURES:
            print(draw(picture, folder))
    except OSError as error:
        print(f"bench.layouts: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return 0
