"""What may import what: the language of kernels is by itself, and nothing goes in circles."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import ternops

PACKAGE = Path(ternops.__file__).parent


def modules(path, top_level=False):
    """The modules that a file imports: anywhere, or when it is imported itself."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_only_the_language_imports_numba(path):
    """And llvmlite: their settings are then checked first, however one comes to them. Numba, which
    takes longer than all else, is imported by what compiles alone."""
    names = [name.split(".")[0] for name in modules(path)]
    assert PACKAGE / "simd" in path.parents or "llvmlite" not in names
    compiles = PACKAGE / "simd" / "lowering" in path.parents or path.name == "settings.py"
    assert compiles or "numba" not in names


def test_the_language_knows_no_tier_and_no_encoding():
    """`simd` imports nothing of the package but files, the time of its import, and itself; `isa`
    nothing but that."""
    for folder, below in (("simd", {"simd", "files", "imported"}), ("isa", {"isa", "simd"})):
        for path in (PACKAGE / folder).rglob("*.py"):
            names = {name for name in modules(path) if name.startswith("ternops.")}
            assert {name.split(".")[1] for name in names} <= below, path


def test_records_of_encodings_need_no_kernels():
    """Packing and ``--help`` wait neither for Numba nor for the tier; a name stands in one file."""
    for path in (PACKAGE / "encodings").glob("*.py"):
        names = {name for name in modules(path) if name.startswith("ternops.")}
        assert {name.split(".")[1] for name in names} <= {"encodings", "absmean", "arrays"}, path
        assert not any(name.startswith("numba") for name in modules(path)), path


@pytest.mark.parametrize("folder", ["simd", "isa", "kernels", "decoder"])
def test_an_encoding_is_known_by_its_record(folder):
    """No name of an encoding stands outside its file, but for what the tiers choose for "auto"."""
    from ternops.encodings import ENCODINGS

    for path in (PACKAGE / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and node.value in ENCODINGS:
                assert path.name in ("tiers.py", "convert.py"), f"{path}:{node.lineno}"


def imports_within_the_package():
    """Each module -> the modules of the package that it imports: where it is imported itself, in
    its functions, and for type checkers."""
    paths = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    return {
        name: {each for each in imported(path, paths) if each != name}
        for name, path in paths.items()
    }


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path, names):
    """Of `from package import module` the module alone: the package need not know it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for each in node.names:
                module = f"{node.module}.{each.name}"
                yield from {module if module in names else node.module} & set(names)


def reached(name, graph):
    """All modules that a module imports, or those that it imports."""
    found, left = set(), [name]
    while left:
        new = graph[left.pop()] - found
        found |= new
        left += new
    return found


def test_no_module_imports_itself():
    """By way of others: whoever reads one of a circle has to read them all."""
    graph = imports_within_the_package()
    below = {name: reached(name, graph) for name in graph}
    circles = {
        frozenset(each for each in below[name] if name in below[each])
        for name in graph
        if name in below[name]
    }
    assert circles == set()


@pytest.mark.parametrize("folder", ["simd", "isa", "kernels", "encodings"])
def test_a_tier_is_compared_by_what_it_has(folder):
    """No name of a tier stands in a comparison: what differs is a field of its record."""
    from ternops.isa import TIERS

    names = {tier.name for tier in TIERS}
    for path in (PACKAGE / folder).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Compare):
                words = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
                assert not words & names, f"{path}:{node.lineno}"


def test_a_tier_inherits():
    """What a child does not say is its parent's; a table by tier falls back on the nearest one."""
    from ternops.isa.tiers import AMX, AVX512VBMI, GENERIC

    child = AMX.extended("child", "new-feature", registers=64)
    assert child.features == (*AMX.features, "new-feature")
    assert (child.dot, child.gemm, child.has_tiles) == (AMX.dot, AMX.gemm, True)
    assert [each.name for each in child.lineage()][:3] == ["child", "amx", "avx512vbmi"]
    assert child.pick({"generic": 1, "avx512vbmi": 2}) == 2
    assert AVX512VBMI.pick({"generic": 1, "amx": 2}) == 1
    assert list(GENERIC.lineage()) == [GENERIC]


def test_a_job_of_other_parameters_is_an_error_at_once():
    """Nobody would call it so: what would be a crash is a TypeError when it is defined."""
    from ternops.simd import RowsKernel, TeamJob

    def product(operands, first, thread, last):
        pass

    words = r"^product\(operands, first, thread, last\): expected the parameters "
    with pytest.raises(TypeError, match=words + r"\(operands, .*, thread\) of a RowsKernel"):
        RowsKernel(product)
    with pytest.raises(TypeError, match=words + r"\(record, .*, threads\) of a TeamJob"):
        TeamJob(product, "named")


def test_one_file_knows_what_is_private():
    """Of tests, only helpers/internals.py names the package's private attributes."""
    tests = Path(__file__).parents[1]
    others = {"_asdict", "_replace", "_exit", "_dynamo", "_candidate_tempdir_list"}
    for path in sorted(tests.rglob("*.py")):
        # The rooms of bench have none, and are no part of the package.
        if tests / "bench" in path.parents or path.name == "internals.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr):
                own = isinstance(node.value, ast.Name) and node.value.id == "self"
                assert own or node.attr in others, f"{path}:{node.lineno}"


def test_no_test_module_imports_another():
    """What several use is in helpers, or a fixture."""
    tests = Path(__file__).parents[1]
    for path in tests.rglob("*.py"):
        for name in modules(path):
            assert not re.match(r"tests\..*\btest_", name), f"{path}: {name}"


def test_all_tests_of_peers_need_them():
    """What stands beside them is left out with them (`tests/conftest.py`)."""
    tests = Path(__file__).parents[1]
    for path in (*tests.glob("peers/test_*.py"), *tests.glob("torch_layers/test_*.py")):
        marks = re.findall("^pytestmark = (.*)$", path.read_text("utf-8"), re.MULTILINE)
        assert "pytest.mark.peers" in "".join(marks), path
