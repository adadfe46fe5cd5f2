"""The joules of a made-up powercap tree: what is added up, what is refused, and in which words."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from bench.core.energy import find_meter

RANGE = 262_143_328_850


@pytest.fixture(autouse=True)
def without_zeus(monkeypatch):
    """Whatever is installed; tests of it put their own in place."""
    monkeypatch.setitem(sys.modules, "zeus.device.cpu", None)


def write(root, **zones):
    """A powercap folder: "0_1" -> (name, microjoules) is the zone intel-rapl:0:1."""
    root.mkdir(exist_ok=True)
    (root / "intel-rapl").mkdir(exist_ok=True)  # the control type, which counts nothing
    for key, (name, energy) in zones.items():
        zone = root / f"intel-rapl:{key.strip('z').replace('_', ':')}"
        zone.mkdir(exist_ok=True)
        (zone / "name").write_text(f"{name}\n")
        (zone / "energy_uj").write_text(f"{energy}\n")
        (zone / "max_energy_range_uj").write_text(f"{RANGE}\n")
    return root


def advance(root, zone, microjoules):
    """Count on, as the kernel does: from 0 again behind the range."""
    file = root / f"intel-rapl:{zone}" / "energy_uj"
    file.write_text(str((int(file.read_text()) + microjoules) % RANGE))


def refused(root, *words):
    meter, reason = find_meter(root)
    assert meter is None
    assert "\n" not in reason
    for word in (*words, "; zeus: "):
        assert word in reason, reason


def test_packages_and_dram_are_added_and_nothing_else(tmp_path):
    root = write(
        tmp_path, z0=("package-0", 5_000_000), z0_0=("core", 1), z0_1=("uncore", 2),
        z0_2=("dram", 3), z1=("package-1", 7), z1_0=("dram", 9), z2=("psys", 11), z2_0=("dram", 13),
    )  # fmt: skip
    meter, reason = find_meter(root)
    assert reason == ""
    assert meter.name == "RAPL package-0 + dram + package-1 + dram"
    before = meter.read()
    for zone, spent in (("0", 1_000_000), ("0:2", 200_000), ("1", 30_000), ("1:0", 4_000),
                        ("0:0", 10**8), ("0:1", 10**8), ("2", 10**9), ("2:0", 10**9)):  # fmt: skip
        advance(root, zone, spent)
    assert meter.since(before) == pytest.approx(1.234, abs=1e-6)
    assert meter.problem == ""


def test_one_package_as_amd_has_it(tmp_path):
    root = write(tmp_path, z0=("package-0", 0), z0_0=("core", 0))
    meter, _ = find_meter(root)
    before = meter.read()
    advance(root, "0", 2_500_000)
    assert meter.since(before) == 2.5
    advance(root, "0", 500_000)
    assert meter.since(before) == 3.0


def test_a_zone_that_is_linked_twice_counts_once(tmp_path):
    root = write(tmp_path, z0=("package-0", 0))
    (root / "intel-rapl:1").symlink_to(root / "intel-rapl:0")
    meter, _ = find_meter(root)
    before = meter.read()
    advance(root, "0", 1_000_000)
    assert meter.since(before) == 1.0


def test_a_counter_starts_again_at_0(tmp_path):
    """One of two, so that the sum alone does not tell."""
    root = write(tmp_path, z0=("package-0", RANGE - 1_000_000), z1=("package-1", 0))
    meter, _ = find_meter(root)
    before = meter.read()
    advance(root, "0", 3_000_000)
    advance(root, "1", 500_000)
    assert int((root / "intel-rapl:0" / "energy_uj").read_text()) == 2_000_000
    assert meter.since(before) == pytest.approx(3.5, abs=1e-6)


def test_counters_that_stand_still_give_no_figure(tmp_path):
    """As where a hypervisor shows them and does not fill them."""
    meter, _ = find_meter(write(tmp_path, z0=("package-0", 0)))
    assert math.isnan(meter.since(meter.read()))
    assert meter.problem == "RAPL package-0: no change"


def test_nothing_to_read(tmp_path):
    refused(tmp_path / "missing", "missing has no intel-rapl zone of a package")
    refused(write(tmp_path), "has no intel-rapl zone of a package")
    refused(write(tmp_path, z0=("psys", 5)), "has no intel-rapl zone of a package")


@pytest.mark.parametrize("zone", ["0", "0:0", "1"])
def test_one_closed_counter_closes_all(tmp_path, monkeypatch, zone):
    """A sum without a package, or without its memory, would be too small."""
    root = write(tmp_path, z0=("package-0", 0), z0_0=("dram", 0), z1=("package-1", 0))
    closed, read = root / f"intel-rapl:{zone}" / "energy_uj", Path.read_text

    def denied(path, *arguments):
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments)

    monkeypatch.setattr(Path, "read_text", denied)
    refused(root, f"intel-rapl:{zone}/energy_uj: Permission denied")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("energy_uj", b"", "energy_uj holds '', expected microjoules"),
        ("energy_uj", b"-5", "energy_uj holds '-5'"),
        ("energy_uj", b"1e6", "energy_uj holds '1e6'"),
        ("energy_uj", b"nan", "energy_uj holds 'nan'"),
        ("energy_uj", b"1\n2\n", "energy_uj holds '1\\n2'"),
        ("energy_uj", b"9" * 5000, "energy_uj holds '999"),
        ("energy_uj", b"\xff\x00", "energy_uj holds no number"),
        ("energy_uj", str(RANGE + 1).encode(), "more than the range"),
        ("max_energy_range_uj", b"0", "max_energy_range_uj is 0"),
        ("max_energy_range_uj", b"many", "max_energy_range_uj holds 'many'"),
        ("max_energy_range_uj", None, "max_energy_range_uj: No such file"),
        ("energy_uj", None, "energy_uj: No such file"),
        ("name", None, "name cannot be read"),
        ("name", b"\xff", "name cannot be read"),
    ],
)
def test_garbage_is_a_reason(tmp_path, file, content, words):
    """In the second of two packages."""
    root = write(tmp_path, z0=("package-0", 0), z1=("package-1", 0))
    path = root / "intel-rapl:1" / file
    path.unlink() if content is None else path.write_bytes(content)
    refused(root, words)


@pytest.mark.parametrize("content", [None, b"", b"x", str(RANGE + 1).encode()])
def test_a_counter_that_goes_bad_gives_nan(tmp_path, content):
    """Once it was found, at either end of what is measured."""
    root = write(tmp_path, z0=("package-0", 0), z1=("package-1", 0))
    meter, _ = find_meter(root)
    file = root / "intel-rapl:1" / "energy_uj"
    before = meter.read()
    advance(root, "0", 1000)
    file.unlink() if content is None else file.write_bytes(content)
    assert math.isnan(meter.since(before))
    assert "intel-rapl:1/energy_uj" in meter.problem
    assert "\n" not in meter.problem
    before = meter.read()
    file.write_text("1000")
    assert math.isnan(meter.since(before))
    assert meter.problem == "RAPL package-0 + package-1: a reading is missing"
    before = meter.read()
    advance(root, "1", 1000)
    assert meter.since(before) == pytest.approx(1e-3)
    assert meter.problem == ""


class FakeCpu:
    """As of zeus: a counter in millijoules that does not start again."""

    def __init__(self, index, joules, dram=None):
        self.cpu_index, self.joules, self.dram = index, joules, dram

    def get_total_energy_consumption(self):
        if self.joules is None:
            raise RuntimeError("the daemon is gone\nand more")
        dram = None if self.dram is None else self.dram * 1e3
        return SimpleNamespace(cpu_mj=self.joules * 1e3, dram_mj=dram)


def with_zeus(monkeypatch, get_cpus):
    for name in ("zeus", "zeus.device", "zeus.device.cpu"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["zeus.device.cpu"].get_cpus = get_cpus


def test_zeus_where_powercap_is_closed(tmp_path, monkeypatch):
    """Without what it takes for a package and is none."""
    root = write(tmp_path, z0=("package-0", 0), z1=("psys", 0))
    (root / "intel-rapl:0" / "energy_uj").write_text("")
    cpus = [FakeCpu(0, 10.0, 3.0), FakeCpu(1, 1e6)]
    with_zeus(monkeypatch, lambda: SimpleNamespace(cpus=cpus))
    meter, reason = find_meter(root)
    assert (meter.name, reason) == ("zeus package-0", "")
    before = meter.read()
    cpus[0].joules, cpus[0].dram, cpus[1].joules = 12.0, 3.5, 2e6
    assert meter.since(before) == pytest.approx(2.5)
    cpus[0].joules = 1.0  # a daemon that was started again
    assert math.isnan(meter.since(before))
    cpus[0].joules = None
    assert math.isnan(meter.since(before))
    assert meter.problem == "zeus: the daemon is gone"


def test_powercap_goes_first(tmp_path, monkeypatch):
    with_zeus(monkeypatch, lambda: SimpleNamespace(cpus=[FakeCpu(0, 1.0)]))
    meter, _ = find_meter(write(tmp_path, z0=("package-0", 0)))
    assert meter.name == "RAPL package-0"


@pytest.mark.parametrize(
    ("cpus", "reason"),
    [([], "no package"), ([FakeCpu(0, None)], "the daemon is gone"), (None, "may not be read")],
)
def test_zeus_that_may_not_read_either(tmp_path, monkeypatch, cpus, reason):
    def get_cpus():
        if cpus is None:
            raise RuntimeError("may not be read\n")
        return SimpleNamespace(cpus=cpus)

    with_zeus(monkeypatch, get_cpus)
    meter, why = find_meter(tmp_path)
    assert meter is None
    assert why.startswith(f"{tmp_path} has no intel-rapl zone of a package; zeus: ")
    assert why.count("zeus: ") == 1
    assert reason in why
    assert "\n" not in why
