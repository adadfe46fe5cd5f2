"""Which mutants are left out, and that a sample is told by its seed."""

from __future__ import annotations

from types import SimpleNamespace

from tests.helpers.processes import ROOT
from tests.mutants import choose

SOURCE = """
def f(a: int | None, *, tiles: int = 1 + 1) -> int | str:
    b: int | None = a or 2
    return Blocks(fields=3 + 4, tiles={"x": 5 + 6}, color="#" + "7")

class GemvTile:
    ahead: int = 4096
"""


def left_out(text):
    """Whether the first place of a text in SOURCE is."""
    place = SOURCE.index(text)
    line = SOURCE.count("\n", 0, place)
    column = place - SOURCE.rfind("\n", 0, place) - 1
    return any(a <= (line + 1, column) < b for a, b in choose.left_out(SOURCE))


def test_what_is_the_same_program_is_left_out():
    """Annotations, tiles and colours; not values beside them."""
    same = ("| None, *", "| str", "| None = a", "+ 6", '+ "7"', "4096")
    other = ("1 + 1", "or 2", "+ 4")
    assert [left_out(each) for each in (*same, *other)] == [True] * 6 + [False] * 3


def test_one_of_each_place_and_kind():
    """Whatever the order in which they come."""
    path = choose.modules(ROOT)["encodings"][0]
    items = [
        SimpleNamespace(mutations=[SimpleNamespace(
            module_path=path, start_pos=(10_000 + line, 4), operator_name=f"core/Replace_{i}",
            occurrence=line,
        )])
        for line in range(50) for i in range(4)
    ]  # fmt: skip
    found = [choose.sample(some, ROOT, 30, 1) for some in (items, items[::-1])]
    assert found[0] == found[1]
    assert len({each.mutations[0].start_pos for each in found[0]}) == 30
    assert choose.sample(items, ROOT, 30, 2) != found[0]
    assert len(choose.sample(items, ROOT, 300, 1)) == 50
