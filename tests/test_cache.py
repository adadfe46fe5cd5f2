"""Compiled kernels are kept on disk, and no state of that disk can break a product."""

from __future__ import annotations

import pytest

import ternops
from tests import processes

#: A product; prints jobs compiled, functions read from the disk, and the cache's folder.
CODE = """
import numpy as np
import ternops
from tests import cases
from ternops import team
from ternops.kernels import reference, table
from numba.core import ccallback
# Count the jobs that are compiled and not read from the disk.
compiled, original = [0], ccallback.CFunc._compile_uncached
def counting(self):
    compiled[0] += 1
    return original(self)
ccallback.CFunc._compile_uncached = counting
table.BYTES_A_THREAD = 1
trits, x = cases.trits(37, 1021), cases.activations(3, 1021)
found = ternops.matmul(x, ternops.pack(trits).T, threads=2)
assert cases.same_bits(found, reference.matmul_int32(x, trits))
print(compiled[0], *[sum(f.stats.cache_hits.values()) for f in (team._launch, team._work)])
print(ternops.info()["cache"])
"""

#: What CODE prints where it had to compile, and where all came from the disk.
COMPILED, READ = (1, 0, 0), (0, 1, 1)


def run(folder, **environment):
    """Run CODE with that cache: (compiled jobs, hits of launch and worker), cache folder."""
    environment = {"NUMBA_CACHE_DIR": str(folder), **environment}
    hits, used = processes.run_code(CODE, **environment).splitlines()
    return tuple(map(int, hits.split())), used


def content(folder):
    """Each file below a folder: its time of change, its place on the disk and its bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_ino, path.read_bytes()) for path in files
    }


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache folder that one process has filled."""
    folder = tmp_path_factory.mktemp("cache")
    hits, used = run(folder)
    assert hits == COMPILED
    assert used.startswith(str(folder))
    assert len(content(folder)) >= 6  # an index and the code of each
    return folder


def copied(filled, target):
    """A copy of the files of a cache, made to be damaged."""
    for path, (_, _, data) in content(filled).items():
        other = target / path.relative_to(filled)
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(data)
    return target


def test_a_second_process_compiles_nothing(filled):
    """It takes every kernel from the disk and leaves the files alone."""
    before = content(filled)
    hits, _ = run(filled)
    assert hits == READ
    assert content(filled) == before


def test_another_tier_has_a_folder_of_its_own(filled):
    """And adds its files without touching the others."""
    before = content(filled)
    hits, used = run(filled, TERNOPS_ISA="generic")
    assert hits == COMPILED
    after = content(filled)
    assert {path: after[path] for path in before} == before
    assert {str(path.parent) for path in after if path not in before} == {used}


def test_a_folder_that_cannot_be_made(tmp_path):
    """Below a file no folder can be: the kernels go to a temporary one, and work."""
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "temporary").mkdir()
    below = tmp_path / "file" / "cache"
    hits, used = run(below, TMPDIR=str(tmp_path / "temporary"))
    assert hits == COMPILED
    assert used.startswith(str(tmp_path / "temporary"))
    assert (tmp_path / "file").read_text() == "in the way"


DAMAGE = {
    "index of garbage": ("*.nbi", lambda data: b"garbage" * 100),
    "code of garbage": ("*.nbc", lambda data: b"garbage" * 100),
    "empty": ("*.nb?", lambda data: b""),
    "cut off": ("*.nb?", lambda data: data[: len(data) // 2]),
    "code lost": ("*.nbc", None),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_only_cost_a_compilation(filled, tmp_path, name):
    """The result is right, and the next process is as well off as ever."""
    pattern, change = DAMAGE[name]
    folder = copied(filled, tmp_path)
    paths = list(folder.rglob(pattern))
    assert paths
    for path in paths:
        if change:
            path.write_bytes(change(path.read_bytes()))
        else:
            path.unlink()
    hits, _ = run(folder)
    assert hits == COMPILED
    hits, _ = run(folder)
    assert hits == READ


def test_this_process_tells_its_folder():
    """`info` names it, and it stays the same."""
    assert ternops.info()["cache"] == ternops.info()["cache"]
    assert "ternops" in ternops.info()["cache"]
