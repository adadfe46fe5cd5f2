"""Machine profiles: what is shipped can be used, and what is wrong is said in one line."""

import copy
import math
import tomllib

import pytest

from ternops.cost.hardware import NOTHING, USUAL_EDGE, Curve
from ternops.cost.latency import together
from ternops.cost.profile import ARCHITECTURES, load, parse, save, shipped
from ternops.cost.tables import ProfileError
from ternops.cost.workload import linear_bytes
from ternops.isa import detect
from tests.helpers.profiles import PROFILE, figure

NAMES = ("cobalt-100", "epyc-7v13", "generic", "graviton-3", "i7-13700h", "i7-13800h", "m2-ultra",
         "raspberry-pi-5", "sapphire-rapids")  # fmt: skip
_NEON = ("neon", "neon-dotprod", "neon-i8mm")


def test_these_are_shipped():
    """By the names that people type."""
    assert tuple(shipped()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_profile_is_one(name):
    """Every figure has a source; tiers are real ones; more threads read no less from DRAM."""
    machine = load(name)
    assert machine.arch in ARCHITECTURES
    known = [tier.name for tier in detect.TIERS] if machine.arch == "x86" else _NEON
    assert set(machine.tiers) <= set(known)
    assert machine.levels[-1].name == "DRAM"
    assert all(machine.sources.values())
    rates = [machine.levels[-1].rate(n) for n in range(1, machine.threads + 1)]
    assert rates == sorted(rates)
    assert all(each.energy > 0 or math.isnan(each.energy) for each in machine.levels)


def test_a_profile_in_the_units_of_the_model():
    """Bytes, seconds, hertz; curves are straight between their points and constant outside."""
    machine = parse(PROFILE, "x.toml")
    assert machine.threads == 6
    assert (machine.memory, machine.idle, machine.core) == (16e9, 5, 6)
    l2, l3, dram = machine.levels
    assert (l2.room(3), l3.room(3)) == (3 * 2**20, 8 * 2**20)
    assert (l2.rate(3), l3.rate(2), l3.rate(6)) == (300e9, 90e9, 120e9)
    assert (dram.capacity, dram.energy) == (math.inf, pytest.approx(100e-12))
    assert machine.barrier.at(4) == pytest.approx(0.2e-6)
    # All wait for the slowest.
    assert [machine.clock(n) for n in (1, 2, 3)] == [4e9, 4e9, 3e9]
    assert machine.kernel("base3").gemv == Curve((1,), (30.0,))
    assert machine.kernel("base3").gemm is None
    assert machine.kernel("tl1").gemv is None
    assert machine.sources["levels[2].energy"] == "a test"


def changed(path, value):
    """PROFILE with another value somewhere; None removes it."""
    profile = copy.deepcopy(PROFILE)
    table = profile
    *way, last = path
    for each in way:
        table = table[each]
    if value is None:
        del table[last]
    else:
        table[last] = value
    return profile


def test_what_calibration_adds_to_a_level_and_a_kernel():
    """In bytes and seconds; without it caches have the usual edge, and nothing else."""
    plain = parse(PROFILE, "x.toml").levels[1]
    assert (plain.edge, plain.refill, plain.fixed) == (USUAL_EDGE, 0, NOTHING)
    costs = {name: figure([1, 2], "us", threads=[1, 2]) for name in ("token", "layer", "head")}
    more = {"edge": figure(2, "times"), "refill": figure(6, "GB/s"), "fixed": costs}
    level = parse(changed(("levels", 1), PROFILE["levels"][1] | more), "x.toml").levels[1]
    assert (level.edge, level.refill, level.fixed.head.at(2)) == (2, 6e9, pytest.approx(2e-6))
    reach = {"L3": figure([0.5, 0.7], "of bandwidth", threads=[1, 2])}
    kernel = parse(changed(("kernels", "base3", "reach"), reach), "x.toml").kernel("base3")
    assert kernel.reach == {"L3": Curve((1, 2), (0.5, 0.7))}


def test_a_former_profile_tells_its_reach():
    """What computing added to reading then: a token takes as long as it took."""
    base3 = {"gemv": figure(30, "MAC/cycle"), "exposed": figure(0.25, "of computing")}
    machine = parse(changed(("kernels", "base3"), base3), "x.toml")
    kernel = machine.kernel("base3")
    compute, read = 1 / (30 * 4e9), linear_bytes("base3", 2048, 2048) / 2048**2 / 20e9
    found = together(compute, read / kernel.reach["DRAM"].at(1))
    assert found == pytest.approx(read + 0.25 * compute)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("memory",), None, "memory: missing"),
        (("memory",), 16, "memory: is 16, expected"),
        (("memory",), figure(-16, "GB"), "memory: value is -16, expected a number above 0"),
        (("memory",), figure(math.nan, "GB"), "memory: value is nan"),
        (("memory",), figure(True, "GB"), "memory: value is True"),
        (("memory",), figure("16", "GB"), "memory: value is '16'"),
        (("memory",), figure(16, "MiB"), "memory: unit is 'MiB', expected 'GB'"),
        (("memory",), {"value": 16, "unit": "GB"}, "memory: has no source"),
        (("memory",), {"value": 16, "unit": "GB", "source": " "}, "memory: source is ' '"),
        (("memory",), figure(16, "GB", sourse="x"), "memory: 'sourse' is unknown"),
        (("arch",), "vax", "arch: is 'vax', expected x86 or arm"),
        (("name",), 3, "name: is 3, expected a text"),
        (("tiers",), [], "tiers: is \\[\\]"),
        (("cores",), [], "cores: expected tables"),
        (("cores", 1, "count"), 0, "cores\\[1\\].count: is 0, expected 1 to 4096"),
        (("cores", 1, "count"), 2.5, "cores\\[1\\].count: is 2.5"),
        (("cores", 0, "clock"), figure(4, "MHz"), "cores\\[0\\].clock: unit is 'MHz'"),
        (("levels",), None, "levels: missing"),
        (("levels", 0, "capacity"), None, "levels\\[0\\].capacity: missing"),
        (("levels", 0, "shared"), "no", "levels\\[0\\].shared: is 'no'"),
        (("levels", 1, "bandwidth"), figure([60, 120], "GB/s"), "threads is None"),
        (("levels", 1, "bandwidth"), figure([60, 120], "GB/s", threads=[2, 1]), "rising counts"),
        (("levels", 1, "bandwidth"), figure([60, 120], "GB/s", threads=[1]), "a count for each"),
        (("levels", 1, "bandwidth"), figure([60, 0], "GB/s", threads=[1, 2]), "value is 0"),
        (("barrier", "time"), figure(0.1, "ms"), "barrier.time: unit is 'ms', expected 'us'"),
        (("power", "core"), None, "power.core: missing"),
        (("kernels", "base3", "gemv"), figure(0, "MAC/cycle"), "kernels.base3.gemv: value is 0"),
        (("kernels", "base3", "gevm"), figure(1, "MAC/cycle"), "kernels.base3.gevm: unknown"),
        (("operations", "node"), "5 nm", "operations.node: is '5 nm'"),
        (("powre",), {"idle": figure(5, "W")}, "powre: unknown, expected arch or barrier or"),
        (("power", "junk"), {}, "power.junk: unknown, expected core or idle"),
        (("power", "value"), 1, "power.value: unknown"),
        (("power.idle",), 3, "power.idle: unknown"),
        (("junk",), [{}, 3], "junk: unknown"),
        (("cores", 1, "junk"), {"a": {}}, "cores\\[1\\].junk: unknown"),
        (("a\nb",), 3, "'a\\\\nb': unknown"),
        (("kernels", "bsae3"), {}, "kernels.bsae3: unknown"),
        (("kernels", "base3", "exposed"), figure(12.5, "of computing"), "value is 12.5, .* 1$"),
        (("kernels", "base3", "reach"), {"L5": figure(1, "of bandwidth")}, "reach.L5: unknown"),
        (("kernels", "base3", "reach"), {"L3": figure(1, "GB/s")}, "reach.L3: unit is 'GB/s'"),
        (("levels", 1, "edge"), figure(1, "times"), "edge: value is 1, expected a number above 1"),
        (("levels", 2, "edge"), figure(2, "times"), "edge: of DRAM, .* expected none"),
        (("levels", 2, "refill"), figure(2, "GB/s"), "refill: of DRAM, .* expected none"),
        (("levels", 1, "fixed"), {"token": figure(1, "us")}, "fixed.layer: missing"),
        (("memory",), figure(16, "GB", threads=[1]), "memory: 'threads' is unknown"),
        (("memory",), figure(10**400, "GB"), "memory: value is 1000000"),
        (("memory",), figure(1e300, "GB"), "memory: value is 1e[+]300, expected a number above 0"),
        (("levels", 2, "energy"), figure(5e-324, "pJ/byte"), "energy: value is 5e-324"),
        (("levels", 2, "bandwidth"), figure([1, 2], "GB/s", threads=[1, 10**400]), "threads is"),
        (("levels", 2, "capacity"), figure(1, "MiB"), "capacity: of DRAM, .* expected none"),
        (("levels", 2, "shared"), True, "shared: of DRAM, .* expected none"),
        (("levels", 1, "name"), "L2", "name: is 'L2', expected one that is not taken"),
        (("levels", 1, "name"), "idle", "levels\\[1\\].name: is 'idle', expected one that is not"),
        (("levels", 1, "name"), "", "levels\\[1\\].name: is '', expected a text"),
        (("name",), "two\nlines", "name: is 'two\\\\nlines', expected a text"),
        (("name",), "x" * 3_000_000, "name: is 'xxx[^ ]{10,30}', expected a text"),
        (("arch",), "x" * 3_000_000, "arch: is 'xxx[^ ]{10,30}', expected"),
        (("tiers",), ["avx2", ""], "tiers: is"),
        (("cores",), [PROFILE["cores"][0] | {"count": 4096}] * 2, "cores: 8192 together, expected"),
    ],
)
def test_a_bad_profile_is_named_with_its_key(path, value, words):
    """One line: the file, the key, what it is and what was expected."""
    with pytest.raises(ProfileError, match=words) as found:
        parse(changed(path, value), "x.toml")
    assert str(found.value).startswith("x.toml: ")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a = ", "no TOML file"),
        (b"\xff\xfe", "no TOML file"),
        ("", "name: missing"),
        ("a = " + "[" * 5000 + "]" * 5000, "no TOML file"),
        (f"a = {'9' * 5000}", "no TOML file"),
        (f"name = '{'x' * 2**20}'", "larger than a profile, expected at most"),
    ],
)
def test_a_file_that_is_no_profile(tmp_path, content, words):
    """It is named."""
    path = tmp_path / "x.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ProfileError, match=words) as found:
        load(path)
    assert str(found.value).startswith(f"{path}: ")


@pytest.mark.parametrize("tables", [None, [], "name", 3])
def test_what_is_no_table_is_no_profile(tables):
    """As it may come from a JSON file."""
    with pytest.raises(ProfileError, match=r"x\.json: is .*, expected the tables of a profile"):
        parse(tables, "x.json")


@pytest.mark.parametrize("name", [None, 3, b"generic"])
def test_a_name_is_a_text_or_a_path(name):
    """Nothing else."""
    with pytest.raises(TypeError, match=r"name=.*: expected a machine or a path"):
        load(name)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "/dev/zero", ".", ""])
def test_a_name_that_cannot_be_a_file(name):
    """Not one that must be read to its end, either."""
    with pytest.raises(ProfileError, match=r"^hardware .*: expected a TOML file or one of cobalt"):
        load(name)


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    """Some editors write one."""
    path = tmp_path / "x.toml"
    save(PROFILE, path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load(path).levels == parse(PROFILE, "").levels


def test_an_unknown_machine_lists_the_known():
    """And says that a file is taken too."""
    with pytest.raises(ProfileError, match=r"'m3': expected a TOML file or one of cobalt-100"):
        load("m3")


def test_a_saved_profile_is_the_same(tmp_path):
    """What is written can be read, by TOML's own rules."""
    path = tmp_path / "x.toml"
    save(PROFILE, path)
    assert tomllib.loads(path.read_text("utf-8")) == PROFILE
    assert load(path).levels == parse(PROFILE, "").levels


def test_nothing_is_written_of_a_bad_profile(tmp_path):
    """The file that was there stays."""
    path = tmp_path / "x.toml"
    path.write_text("old")
    with pytest.raises(ProfileError):
        save(changed(("memory",), None), path)
    assert path.read_text() == "old"
