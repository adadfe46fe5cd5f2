"""The pictures of docs/LAYOUTS.md: they are the committed ones, and say what the packers do."""

from __future__ import annotations

import numpy as np
import pytest

from bench.core.layouts import find
from bench.pages import layouts
from bench.pages.layouts import PICTURES
from tests.helpers import processes

DOCS = processes.ROOT / "docs"


def pictures():
    """Each, of which the packer of 16 long rows takes seconds to be asked."""
    slow = {"three_bit": [pytest.mark.slow]}
    for each in PICTURES:
        yield pytest.param(each, id=each.file, marks=slow.get(each.file, []))


def put_together(layout, values):
    """The bytes of a matrix, from the parts that are drawn and what the page says of them."""
    levels = list(layout.encoding.values)
    packed = []
    for at, parts in enumerate(layout.bytes):
        byte = 0
        for part in parts:
            weights = values[part.row, list(part.columns)].astype(int)
            # What the next level adds to the number of a tuple, whose sign may be elsewhere.
            number = part.base + weights @ part.places
            if part.is_sign:
                tuple_ = next(
                    each
                    for parts in layout.bytes
                    for each in parts
                    if each.row == part.row and each.columns == part.columns and not each.is_sign
                )
                number = weights @ tuple_.places < 0
            elif len(weights) == 1:
                number = levels.index(weights[0])
                if layout.encoding.name == "three_bit":
                    number = number >> 2 if at // 64 % 3 == 2 else number & 3
            byte |= abs(int(number)) << part.low
        packed.append(byte)
    return packed


@pytest.mark.parametrize("picture", list(pictures()))
def test_what_is_drawn_is_what_the_packer_does(picture, tmp_path):
    """Bytes put together from the drawn parts, of random weights; and the committed picture."""
    layout = layouts.layout_of(picture)
    random = np.random.default_rng(7)
    for _ in range(3):
        values = random.choice(layout.encoding.values, (layout.rows, layout.columns))
        packed = layout.encoding.pack(values.astype(np.int8))
        assert put_together(layout, values) == packed[: len(layout.bytes)].tolist()
    drawn = layouts.draw(picture, tmp_path)
    assert drawn.read_text("utf-8") == (DOCS / "layouts" / drawn.name).read_text("utf-8"), (
        "python -m bench.layouts docs/layouts draws them again"
    )


def test_every_picture_is_on_the_page():
    """And no other is in the folder."""
    page = (DOCS / "LAYOUTS.md").read_text("utf-8")
    files = {f"{each.file}.svg" for each in PICTURES}
    assert {each.name for each in (DOCS / "layouts").iterdir()} == files
    assert all(f"(layouts/{name})" in page for name in files)


def test_a_bit_that_two_weights_have():
    """Is one part of both: a packer that adds neighbours up is seen through."""
    encoding = layouts.ENCODINGS["tl1"]
    (high, low), *_ = find(encoding, 1, 4).bytes
    assert (low.columns, low.places, low.base, low.low, low.width) == ((0, 1), (3, 1), 4, 0, 4)
    assert (high.columns, high.places, high.base, high.low, high.width) == (
        (2, 3), (3, 1), 4, 4, 4,
    )  # fmt: skip


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    """One line."""
    (tmp_path / "file").write_text("")
    assert layouts.main([str(tmp_path / "file" / "layouts")]) == 2
    assert capsys.readouterr().err.startswith("bench.layouts: ")
