"""Compiled kernels that the package carries: used where they fit, and never otherwise."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import ternops
from ternops.ahead.jobs import every
from ternops.isa import detect
from ternops.isa.targets import target_of
from ternops.simd import host, objects
from tests.helpers import processes
from tests.helpers.kernel_cache import (
    COMPILED,
    COMPILED_OF_PRODUCT,
    ONE,
    PRODUCT,
    READ,
    run,
    start,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("carried")]
NAME = f"{host.machine()}-{detect.TIER.name}.kernels"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A copy of the package that carries what ONE and PRODUCT need, as `ternops.ahead.carried`
    joins it."""
    place = tmp_path_factory.mktemp("carried")
    package = place / "ternops"
    source = Path(ternops.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(package / "compiled", ignore_errors=True)
    _, used = run(place / "cache", ONE, PRODUCT)
    found = [objects.open_objects(path) for path in Path(used).glob("*.kernels")]
    kernels = [(key, *each.read(key)) for each in found for key in each.kernels]
    # The digest of a file in the package is that of the sources alone.
    origin = found[0].origin
    (package / "compiled").mkdir()
    (package / "compiled" / NAME).write_bytes(objects.as_bytes(origin, kernels))
    return package


@pytest.fixture
def package(original, tmp_path):
    """A copy of it to be changed, and the environment in which it is imported."""
    copy = tmp_path / "copy" / "ternops"
    shutil.copytree(original, copy, ignore=shutil.ignore_patterns("checkpoints"))
    path = os.pathsep.join((str(copy.parent), str(processes.ROOT)))
    return copy, {"PYTHONPATH": path, **processes.current()}


def test_what_is_carried_is_used(package, tmp_path):
    """Nothing is compiled, nothing written to the user's folder, and Numba is not imported."""
    _, environment = package
    assert run(tmp_path / "cache", ONE, PRODUCT, **environment)[0] == READ
    assert not list((tmp_path / "cache").rglob("*.kernels"))
    done = processes.python(
        "-P", "-m", "tests.programs.without_numba",
        NUMBA_CACHE_DIR=str(tmp_path / "cache"), **environment,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_an_edited_source_makes_it_stale(package, tmp_path):
    """All is compiled anew, of any file that kernel code may import from."""
    copy, environment = package
    with (copy / "kernels" / "operands.py").open("a") as file:
        file.write("# edited\n")
    assert run(tmp_path / "cache", **environment)[0] == COMPILED
    assert run(tmp_path / "cache", **environment)[0] == READ


def changed(path, change):
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    "change",
    [lambda data: data[:200], lambda data: b"", lambda data: data[:40] + b"\0" + data[41:]],
    ids=["cut off", "empty", "a byte of the header"],
)
def test_a_damaged_file_only_costs_compilations(package, tmp_path, change):
    """All of its jobs."""
    copy, environment = package
    changed(copy / "compiled" / NAME, change)
    assert run(tmp_path / "cache", **environment)[0] == COMPILED


def test_a_damaged_kernel_only_costs_its_own_compilation(package, tmp_path):
    """A byte of its code: the others are used."""
    copy, environment = package
    path = copy / "compiled" / NAME
    _, offset, size, _ = objects.open_objects(path).kernels["ternops.cost.probes.read_1"]
    at = offset + size // 2
    changed(path, lambda data: data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :])
    assert run(tmp_path / "cache", ONE, PRODUCT, **environment)[0] == ["read_1"]


def test_a_cpu_that_lacks_a_feature_compiles_its_own(package, tmp_path):
    """The same tier and sources, but code that may hold an instruction that is not there."""
    copy, environment = package
    path = copy / "compiled" / NAME
    found = objects.open_objects(path)
    kernels = [(key, *found.read(key)) for key in found.kernels]
    for part in ({"features": (*found.origin.features, "+unheard-of")}, {"platform": "x86_64-os2"}):
        origin = objects.Origin(**{**vars(found.origin), **part})
        path.write_bytes(objects.as_bytes(origin, kernels))
        assert run(tmp_path / next(iter(part)), **environment)[0] == COMPILED


def test_another_tier_is_not_served(package, tmp_path):
    """By the file of this one, under the other's name."""
    copy, environment = package
    other = "generic" if detect.TIER.name != "generic" else detect.available()[0].name
    path = copy / "compiled" / NAME
    path.rename(path.with_name(f"{host.machine()}-{other}.kernels"))
    changes = {**environment, "TERNOPS_ISA": other}
    assert run(tmp_path / "cache", **changes)[0] == COMPILED


def test_nothing_is_compiled_for_numba_to_be_imported():
    """A first product and a first token where all kernels are there."""
    processes.run_code("import ternops; ternops.warmup(decoder=True)", **processes.current())
    assert processes.run_program("without_numba", "--token", **processes.current()).split() == []


def test_a_target_is_its_tier():
    """Every tier's features are told to LLVM, and each level names what it stands for."""
    for tier in detect.TIERS:
        for machine in tier.machines or ("x86_64", "aarch64"):
            target = target_of(tier, machine)
            told = target.features.replace("+", "").split(",")
            assert set(tier.features) <= set(told)
            assert target.triple.startswith(machine)
    here = target_of(detect.TIER, host.machine())
    assert not detect.missing(detect.TIER)
    assert here.tier == detect.TIER.name


def test_every_job_has_a_key_of_its_own():
    """And the file of a tier has all that the package may ask for."""
    jobs = every()
    assert len({job.key for job in jobs.values()}) == len(jobs) > 30
    names = {key.rpartition(".")[2] for key in jobs}
    assert {*COMPILED, *COMPILED_OF_PRODUCT} <= names
    assert {"forward", "gemm_base3", "gemv_tl2", "read_4", "norms"} <= names


@pytest.mark.tiers
@pytest.mark.xdist_group("carried tier")
def test_a_tier_compiled_for_any_of_its_cpus_is_exact(tmp_path):
    """`python -m ternops.ahead.carried`: the bits of the oracle, from what is carried alone."""
    copy = tmp_path / "ternops"
    source = Path(ternops.__file__).parent
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "compiled"))
    done = processes.python(
        "-m", "ternops.ahead.carried", str(copy / "compiled"), "--tiers", "here",
        timeout=550, **processes.current(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    path = os.pathsep.join((str(tmp_path), str(processes.ROOT)))
    cache = tmp_path / "cache"
    changes = {"PYTHONPATH": path, **processes.current()}
    used = start("every", NUMBA_CACHE_DIR=str(cache), **changes)
    assert used.stdout.splitlines()[0].split() == READ
    assert not list(cache.rglob("*.kernels"))
