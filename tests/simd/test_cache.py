"""Compiled kernels are kept on disk, and no state of that disk can break a product."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import os
import shutil
import sys
import tempfile
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

import ternops
from ternops.simd import folder
from ternops.simd.folder import cache_folder
from ternops.simd.objects import MAGIC
from tests.helpers import internals, processes
from tests.helpers.kernel_cache import ANOTHER, COMPILED, ONE, READ, run, start

pytestmark = pytest.mark.xdist_group("cache")


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
    assert len(content(folder)) == len(COMPILED)
    return folder


def copied(filled, target):
    """A copy of the files of a cache, made to be damaged."""
    for path, (_, _, data) in content(filled).items():
        other = target / path.relative_to(filled)
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(data)
    return target


@pytest.mark.slow
def test_a_second_process_compiles_nothing(filled):
    """It takes all from the disk and leaves the files alone."""
    before = content(filled)
    hits, _ = run(filled)
    assert hits == READ
    assert content(filled) == before


@pytest.mark.slow
def test_a_second_process_compiles_no_kernel_of_any_encoding(tmp_path):
    """Every job of every encoding is kept."""
    # What is there already spares the first process most of its work.
    own = Path(cache_folder())
    shutil.copytree(own, tmp_path / "ternops" / own.name)
    isa = {"TERNOPS_ISA": os.environ.get("TERNOPS_ISA", "")}
    _, used = run(tmp_path, "every", **isa)
    assert used.startswith(str(tmp_path))
    before = content(tmp_path)
    hits, _ = run(tmp_path, "every", **isa)
    assert hits == READ
    assert content(tmp_path) == before


@pytest.mark.slow
def test_another_tier_has_a_folder_of_its_own(filled):
    """And adds its files without touching the others."""
    before = content(filled)
    hits, used = run(filled, TERNOPS_ISA="generic")
    assert hits == COMPILED
    after = content(filled)
    assert {path: after[path] for path in before} == before
    assert {str(path.parent) for path in after if path not in before} == {used}


@pytest.mark.slow
def test_the_folder_is_that_of_the_tier_however_it_was_chosen(tmp_path):
    """By name or as the best there is; what the system refuses makes another tier of it."""
    settings = {**processes.current(), "NUMBA_CACHE_DIR": str(tmp_path)}
    code = (
        "from ternops.isa import detect; from ternops.simd.folder import cache_folder; "
        "print(detect.TIER.name, cache_folder())"
    )
    tier, folder = processes.run_code(code, **settings).split()
    assert processes.run_code(code, **{**settings, "TERNOPS_ISA": tier}).split() == [tier, folder]
    other = "from ternops.simd import folder; folder.compile_for('another'); " + code
    assert processes.run_code(other, **settings).split()[1] != folder


@pytest.fixture
def package(tmp_path):
    """A copy of the package, to be edited, and the environment in which it is imported."""
    source = Path(ternops.__file__).parent
    copy = tmp_path / "copy" / "ternops"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "checkpoints"))
    return copy, {"PYTHONPATH": os.pathsep.join((str(copy.parent), str(processes.ROOT)))}


@pytest.mark.slow
def test_an_edited_package_compiles_anew(filled, package):
    """A copy finds the original's kernels until a file that they only import from is edited."""
    folder, environment = package
    hits, before = run(filled, **environment)
    assert hits == READ
    with (folder / "kernels" / "operands.py").open("a") as file:
        file.write("# edited\n")
    hits, after = run(filled, **environment)
    assert hits == COMPILED
    assert after != before


@pytest.mark.slow
def test_what_older_sources_made_is_not_kept_as_that_of_new_ones(package, tmp_path):
    """A tree that is switched to another version while a process starts, or later: what it has
    imported is no longer what the digest of the files would tell. Files without kernels may."""
    folder, environment = package
    kernels, other = folder / "kernels" / "operands.py", folder / "commands" / "options.py"

    def kept(*steps):
        cache = tmp_path / str(len(list(tmp_path.iterdir())))
        done = start(*steps, NUMBA_CACHE_DIR=str(cache), **environment)
        warned = [line for line in done.stderr.splitlines() if LOSS in line]
        files = cache.rglob("*.kernels")
        names = {path.name.rpartition("-")[0] for path in files}
        return done.stdout.splitlines(), names, warned

    (compiled, used), names, warned = kept(f"edit:{kernels}", ONE)
    assert (compiled.split(), names) == (COMPILED, set())
    words = f"{kernels} has changed since this process imported ternops"
    assert used == f"none, each process compiles anew ({words})"
    assert len(warned) == 1
    assert words in warned[0]
    (compiled, _), names, warned = kept(ONE, f"edit:{kernels}", ANOTHER)
    assert len(compiled.split()) > len(COMPILED) == len(names)
    assert len(warned) == 1
    assert f"not kept for the next process ({words})" in warned[0]
    (compiled, used), names, warned = kept(f"edit:{other}", ONE, f"edit:{other}")
    assert len(compiled.split()) == len(COMPILED) == len(names)
    assert warned == []


@pytest.mark.slow
def test_any_edit_leads_to_another_folder(package, tmp_path):
    """Of each file of the package in turn, by a single byte, but for those without kernels."""
    folder, environment = package
    done = processes.python(
        "-P", "-m", "tests.programs.edit_sources", NUMBA_CACHE_DIR=str(tmp_path), **environment
    )
    assert done.returncode == 0, done.stderr
    file, edits, folders = done.stdout.split()
    assert file == str(folder / "__init__.py")
    assert int(edits) == len(list(folder.rglob("*.py"))) > 30
    assert 50 < int(folders) < int(edits)


@pytest.mark.slow
def test_a_folder_that_cannot_be_made(tmp_path):
    """Below a file no folder can be: the kernels go to a temporary one, and work."""
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "temporary").mkdir()
    below = tmp_path / "file" / "cache"
    hits, used = run(below, TMPDIR=str(tmp_path / "temporary"))
    assert hits == COMPILED
    assert used.startswith(str(tmp_path / "temporary"))
    assert (tmp_path / "file").read_text() == "in the way"


def flipped(data, at):
    """The bytes with a bit changed."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


DAMAGE = {
    "garbage": lambda data: b"garbage" * 100,
    "empty": lambda data: b"",
    "cut off in the middle": lambda data: data[: len(data) // 2],
    "cut off in the header": lambda data: data[:100],
    "cut off by a byte": lambda data: data[:-1],
    "a bit of the code": lambda data: flipped(data, len(data) // 2),
    "a bit of the header": lambda data: flipped(data, 60),
    "a long header": lambda data: data[: len(MAGIC)] + b"\xff" * 8 + data[len(MAGIC) + 8 :],
    "another format": lambda data: data.replace(b"kernels 1", b"kernels 2", 1),
    "lost": None,
}


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, len(DAMAGE), len(COMPILED)))
def test_damaged_files_only_cost_a_compilation(filled, tmp_path, first):
    """Each file in a way of its own: the result is right, and the next process is as well off as
    ever."""
    folder = copied(filled, tmp_path)
    paths = list(folder.rglob("*.kernels"))
    assert len(paths) >= len(COMPILED)
    names = list(DAMAGE)[first : first + len(COMPILED)]
    for path, name in zip(paths, itertools.cycle(names), strict=False):
        if change := DAMAGE[name]:
            path.write_bytes(change(path.read_bytes()))
        else:
            path.unlink()
    hits, _ = run(folder)
    assert hits == COMPILED
    hits, _ = run(folder)
    assert hits == READ


@pytest.mark.slow
def test_each_cpu_has_files_of_its_own(tmp_path):
    """So that two CPUs that share a home, or two processes, cannot mix their code up."""
    cpus = {"TERNOPS_ISA": "generic"}, {"TERNOPS_ISA": "generic", **processes.FEATURELESS}
    for cpu in cpus:
        assert run(tmp_path, **cpu)[0] == COMPILED
    for cpu in cpus:
        assert run(tmp_path, **cpu)[0] == READ
    names = [path.name for path in tmp_path.rglob("*.kernels")]
    assert len(names) == 2 * len(COMPILED)
    assert len({name.rpartition("-")[0] for name in names}) == len(COMPILED)


@pytest.mark.parametrize("name", ["numba", "llvmlite"])
def test_each_version_of_the_compiler_has_a_folder(monkeypatch, tmp_path, name):
    """Of Numba, of LLVM, of Python; none is imported for that."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    other = tmp_path / name / "__init__.py"
    other.parent.mkdir()
    other.write_text("")
    other.with_name("_version.py").write_text("another")

    def find_spec(module):
        found = importlib.util.find_spec(module)
        return ModuleSpec(name, None, origin=str(other)) if module == name else found

    folders = []
    for find in (importlib.util.find_spec, find_spec):
        monkeypatch.setattr(folder, "find_spec", find)
        internals.look_again()
        folders.append(cache_folder())
    monkeypatch.undo()
    internals.look_again()
    assert {Path(each).parent for each in folders} == {tmp_path / "ternops"}
    assert len(set(folders)) == 2


# where the usual folder cannot be used

LOSS = "RuntimeWarning: compiled kernels are "


def run_without(temporary, *arguments, **changes):
    """As `run`, without a home; its warnings, too, and `info`'s words on the cache."""
    gone = ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR")
    with pytest.MonkeyPatch.context() as patch:
        for name in gone:
            patch.delenv(name, raising=False)
        done = start(*arguments, TMPDIR=str(temporary), **changes)
    compiled, used = done.stdout.splitlines()
    warned = [line.partition(LOSS)[2] for line in done.stderr.splitlines() if LOSS in line]
    return compiled.split(), used, warned


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="users of POSIX")
def test_without_a_home_all_processes_share_a_temporary_folder(tmp_path):
    """One line of the first; the second finds what that compiled; nobody else may enter."""
    hits, used, warned = run_without(tmp_path, "--no-home", ONE)
    assert hits == COMPILED
    assert len(warned) == 1
    own = tmp_path / f"ternops-{os.geteuid()}"
    assert used.startswith(str(own))
    assert "home" in used
    assert warned[0].startswith(f"kept in {own}")
    assert warned[0].endswith("NUMBA_CACHE_DIR names another folder")
    assert own.stat().st_mode & 0o077 == 0
    before = content(tmp_path)
    assert run_without(tmp_path, "--no-home", ONE) == (READ, used, [])
    assert content(tmp_path) == before
    assert os.listdir(tmp_path) == [own.name]


def spoiled_by_mode(own):
    own.mkdir()
    own.chmod(0o777)


def spoiled_by_owner(own):
    own.mkdir()
    try:
        os.chown(own, 65534, 65534)
    except PermissionError:
        pytest.skip("only root makes others' folders")


def spoiled_by_link(own):
    real = own.parent / "real"
    spoiled_by_mode(real)
    own.symlink_to(real)


def spoiled_by_file(own):
    own.write_text("in the way")


@pytest.mark.skipif(sys.platform == "win32", reason="users of POSIX")
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoiled_by_mode, "everybody may write there"),
        (spoiled_by_owner, "belongs to another user"),
        (spoiled_by_link, "everybody may write there"),
        (spoiled_by_file, "File exists"),
    ],
)
def test_code_of_others_is_not_executed(monkeypatch, tmp_path, spoil, words):
    """A folder that somebody else made, or can write to, is not used, and comes to be so."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "usual"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    places = tmp_path / "usual" / "ternops", tmp_path / f"ternops-{os.geteuid()}"
    digest = internals.cache_digest()
    for place, expected in zip(places, (str(places[1] / digest), ""), strict=True):
        folder.make(place / digest)
        folder.check(place / digest)
        shutil.rmtree(place)
        spoil(place)
        internals.look_again()
        assert folder.cache_folder() == expected
        assert words in folder.cache_state()
        with pytest.raises(OSError, match=str(place)):
            folder.check(place / digest)
    monkeypatch.undo()
    internals.look_again()
    assert folder.cache_folder()


@pytest.mark.slow
def test_nothing_to_write_to(tmp_path):
    """Products and `info` work, with one line; nothing in the current folder is read or written."""
    hits, used, warned = run_without(tmp_path, "--no-folder", "--folder", str(tmp_path), ONE)
    assert hits == COMPILED
    assert used.startswith("none, each process compiles anew (")
    assert len(warned) == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_disk_that_is_full(tmp_path):
    """Each kernel is compiled and none kept; one line, and no half of a file."""
    full = ("--max-file-bytes", "100", ONE)
    hits, _, warned = run_without(tmp_path, *full, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert hits == COMPILED
    assert len(warned) == 1
    assert "File too large" in warned[0]
    assert content(tmp_path) == {}


@pytest.mark.slow
def test_a_folder_that_is_cleaned_meanwhile(tmp_path):
    """What is compiled after that is kept again."""
    hits, used = run(tmp_path, ONE, f"clean:{tmp_path}", ANOTHER)
    assert len(hits) > len(COMPILED)
    assert len(list(Path(used).glob("*.kernels"))) == len(hits) - len(COMPILED)


def test_a_package_without_sources_keeps_nothing(monkeypatch, tmp_path):
    """Nothing would tell its kernels from those of another version."""
    monkeypatch.setattr(folder, "PACKAGE", tmp_path)
    internals.look_again()
    found = folder.cache_folder(), folder.cache_state()
    monkeypatch.undo()
    internals.look_again()
    assert found[0] == ""
    assert f"{tmp_path} holds no sources" in found[1]


@pytest.mark.skipif(sys.platform == "win32", reason="homes of POSIX")
@pytest.mark.parametrize("name", ["HOME", "NUMBA_CACHE_DIR"])
def test_a_relative_home_is_one_folder(tmp_path, name):
    """Below the folder that the process was in when it first looked, wherever it goes later."""
    code = (
        "import os\nfrom ternops.simd.folder import cache_folder\n"
        f"os.chdir({str(tmp_path)!r})\nprint(cache_folder())"
    )
    changes = {"XDG_CACHE_HOME": "", "NUMBA_CACHE_DIR": "", name: "here"}
    found = processes.run_code(code, **changes).strip()
    assert found.startswith(str(tmp_path / "here"))


def test_info_names_the_folder():
    """`info` names it, and it stays the same."""
    assert ternops.info()["cache"] == ternops.info()["cache"]
    assert "ternops" in ternops.info()["cache"]


def test_no_kernel_code_imports_what_its_cache_does_not_depend_on():
    """Nothing that holds compiled functions, or that they import, is in a folder left out."""
    package = Path(ternops.__file__).parent

    def imported(path):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ternops"):
                names = [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
                for name in names:
                    place = package.parent.joinpath(*name.split("."))
                    found = [place.with_suffix(".py"), place / "__init__.py"]
                    yield from (each for each in found if each.is_file())

    holds = ("@TeamJob", "@RowsKernel", "@LayerKernel", "@kernel", "@inlined", "@Entry")
    open_, seen = [], set()
    for path in package.rglob("*.py"):
        if any(line.startswith(holds) for line in path.read_text("utf-8").splitlines()):
            open_.append(path)
    assert len(open_) > 15
    while open_:
        path = open_.pop()
        if path not in seen:
            seen.add(path)
            open_ += imported(path)
    assert not [p for p in seen if any(each in p.parents for each in folder.WITHOUT_KERNELS)]
