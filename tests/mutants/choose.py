"""Which mutants are made, and which tests each has to survive."""

from __future__ import annotations

import ast
import random
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

#: Modules that are plain Python, by what they are about.
MODULES = {
    "encodings": ("ternops/encodings/*.py",),
    "checks of products": tuple(
        f"ternops/{name}.py" for name in ("arrays", "matrix", "operators", "packed", "product")
    ),
    "formats": ("ternops/decoder/formats/*.py", "ternops/files.py", "ternops/matrix_file.py"),
}
#: What tests are chosen from: those of `make test-quick` in these files.
TESTS = ("tests/encodings/test_*.py", "tests/formats/test_*.py", "tests/kernels/test_packing.py",
         *(f"tests/library/test_{name}.py" for name in (
             "arrays", "bad_input", "copies", "files", "grouped_files", "grouped_matrices",
             "indexing", "matmul_numpy")))  # fmt: skip
SELECTED = "not slow and not peers and not arm and not mpi"
#: Arguments and classes that say how fast a kernel is, or how a plot looks, and change no result.
SPEED_AND_LOOK = frozenset({
    "GemvTile", "PanelTile", "batch_rows", "color", "marker", "pair_apart", "panel_tiles",
    "stream_tiles", "tiles", "unpacks_slowly",
})  # fmt: skip
#: Seconds of tests, the quickest first, that a mutant has to survive.
ENOUGH = 40.0


class Place(NamedTuple):
    """Where a mutant differs, and how: the kinds of a place are one mutant's worth."""

    module: str
    start: tuple[int, int]
    kind: str


def modules(root: Path) -> dict[str, list[Path]]:
    """The files of MODULES, relative to the root."""
    return {
        about: sorted(each.relative_to(root) for name in names for each in root.glob(name))
        for about, names in MODULES.items()
    }


def left_out(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Parts of a module, (line, column) to (line, column), where a mutant is the same program:
    annotations, which nothing evaluates, what only type checkers see, SPEED_AND_LOOK."""
    found: list[ast.AST | None] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found.append(node.returns)
            case ast.arg() | ast.AnnAssign():
                found.append(node.annotation)
            case ast.If() if ast.unparse(node.test) == "TYPE_CHECKING":
                found.append(node)
            case ast.keyword(arg=name) | ast.ClassDef(name=name) if name in SPEED_AND_LOOK:
                found.append(node)
    return [
        ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))  # type: ignore[attr-defined]
        for node in found
        if node
    ]


def sample(items: Iterable[Any], root: Path, most: int, seed: int) -> list[Any]:
    """As many work items of cosmic-ray, drawn at random: one for a place and kind of change, or an
    operator that ten others may replace would count ten times."""
    parts = {
        path: left_out((root / path).read_text())
        for each in modules(root).values()
        for path in each
    }
    by_place = defaultdict(list)
    for item in items:
        (mutation,) = item.mutations
        path = Path(mutation.module_path)
        start = tuple(mutation.start_pos)
        if any(first <= start < last for first, last in parts[path]):
            continue
        kind = mutation.operator_name.rpartition("/")[2].partition("_")[0]
        by_place[Place(str(path), start, kind)].append(item)
    numbers = random.Random(seed)
    places = numbers.sample(sorted(by_place), min(most, len(by_place)))

    def order(item: Any) -> tuple[str, int]:
        return item.mutations[0].operator_name, item.mutations[0].occurrence

    return [numbers.choice(sorted(by_place[place], key=order)) for place in places]


class Tests:
    """What each line of the modules is run by, and how long each test takes."""

    def __init__(self, data: Path, reports: Iterable[Path], root: Path) -> None:
        """data: of coverage, with a context a test. reports: of the same runs, in JUnit's form."""
        import coverage

        self._root = root
        self._data = coverage.CoverageData(str(data))
        self._data.read()
        self.seconds: dict[str, float] = defaultdict(float)
        for report in reports:
            for case in ElementTree.parse(report).iter("testcase"):
                module, name = case.get("classname", ""), case.get("name", "").partition("[")[0]
                node = f"{module.replace('.', '/')}.py::{name}"
                self.seconds[node] += float(case.get("time", 0))

    def of(self, path: Path, line: int) -> list[str]:
        """The tests, quickest first and ENOUGH of them, that run a line of a module; if it is run
        when the module is imported, any line of that; if all of it is, any line of its folder."""
        contexts = self._contexts(self._root / path)
        found = contexts.get(line, set()) - {""}
        if not found or "" in contexts[line]:
            found |= set().union(*contexts.values())
        if not found - {""}:
            folder = (self._root / path).parent
            for each in map(Path, self._data.measured_files()):
                if each.parent == folder:
                    found |= set().union(*self._contexts(each).values())
        chosen: list[str] = []
        left = ENOUGH
        for name in sorted(found & set(self.seconds), key=self.seconds.__getitem__):
            left -= self.seconds[name]
            if left < 0 and chosen:
                break
            chosen.append(name)
        return chosen

    def _contexts(self, path: Path) -> dict[int, set[str]]:
        """The tests that run each line; "" is none."""
        found = self._data.contexts_by_lineno(str(path))
        return {line: set(names) for line, names in found.items()}
