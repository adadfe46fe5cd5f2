"""What users type: every program below bench, in a process of its own."""

import ast
import re
from pathlib import Path

import pytest

import bench
from tests.helpers import processes

BENCH = Path(bench.__file__).parent

PROGRAMS = (
    "arm", "arm.loops", "arm.retarget", "compare", "correctness", "cost", "cost_model", "decode",
    "dummy", "encodings", "kernels", "layouts", "links", "namespaces", "plot", "provenance",
    "ranks", "report", "reproduction", "roofline", "run", "scaling", "serve",
    "suites.lossless.tier", "torch",
)  # fmt: skip


@pytest.mark.slow
def test_programs_say_what_they_take(tmp_path):
    """Without measuring anything; each imports what it needs by itself."""
    done = processes.program("usages", str(tmp_path), *(f"bench.{name}" for name in PROGRAMS))
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
    for name in PROGRAMS:
        found = (tmp_path / f"bench.{name}").read_text()
        assert found.startswith("usage: python -m bench."), (name, found)


def test_rooms_know_only_what_lies_below():
    """core, then limits, engines, models and published, pages, suites; none knows one above."""
    below = {
        "core": (), "published": ("core",), "engines": ("core",), "models": ("core",),
        "limits": ("core",), "pages": ("core", "limits", "published"),
    }  # fmt: skip
    for room, known in below.items():
        for path in (BENCH / room).rglob("*.py"):
            for found in re.findall(r"(?:from|import) bench\.(\w+)", path.read_text("utf-8")):
                assert found in (room, *known), f"{path}: bench.{found}"


def test_files_are_small():
    """At most 400 lines each; what is at the top only leads into a room."""
    for path in BENCH.rglob("*.py"):
        lines = len(path.read_text("utf-8").splitlines())
        assert lines <= (20 if path.parent == BENCH else 400), path


def test_a_name_has_one_meaning():
    """No two public classes are called the same, nor as rich's or this library's own are."""
    found = [
        node.name
        for path in BENCH.rglob("*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert sorted(set(found)) == sorted(found)
    assert not {"Decoder", "Options", "Figure", "Workspace"} & set(found)
