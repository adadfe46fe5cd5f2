"""Calibration: a profile that can be used, whatever the machine's speed."""

import numpy as np
import pytest

from ternops.cost import calibrate as module
from ternops.cost import measured, predict
from ternops.cost.latency import MAX_REACH
from ternops.cost.layouts import SIZES
from ternops.cost.probes import FEW
from ternops.cost.profile import parse
from ternops.cost.rounds import Memory, Products, interleaved
from ternops.cost.trials import Attention, Chain, matrix_step
from ternops.cost.workload import KINDS
from tests.helpers import internals


@pytest.fixture(scope="module")
def profile():
    """Of this machine, with little memory and few rounds."""
    said = []
    with internals.quick_calibration():
        found = module.calibrate([1, 2], said.append)
    assert len(said) == len(set(said))
    return found


@pytest.mark.slow
def test_it_is_a_profile(profile):
    """Every kernel's rates, every level, barriers."""
    machine = parse(profile, "this machine")
    for kind in KINDS:
        kernel = machine.kernel(kind)
        figures = (kernel.gemv, kernel.gemm, kernel.row, kernel.prepare)
        assert min(min(each.values) for each in figures) > 0
        assert "DRAM" in kernel.reach
        assert set(kernel.reach) <= {level.name for level in machine.levels[1:]}
        for reach in kernel.reach.values():
            assert 0 < min(reach.values) <= max(reach.values) <= MAX_REACH
    assert machine.levels[-1].name == "DRAM"
    assert machine.levels[-1].fixed.token.at(1) > machine.levels[-1].fixed.head.at(1) > 0
    assert machine.barrier.at(2) > 0


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["decode", "prefill"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_predicts_everything(profile, kind, phase):
    """No rate is unknown."""
    machine = parse(profile, "this machine")
    found = predict(SIZES["125M"], machine, kind, 1, phase)
    assert found.unknown == ()
    assert found.tokens_per_second > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_chain_multiplies(kind):
    """Every matrix, with what was prepared."""
    chain = Chain(kind, 64, 128, 3, 2, "few", 2)
    chain.out[:] = 0
    chain.multiply(2)
    assert (chain.out[: 2 * 64] != 0).mean() > 0.9
    assert chain.macs == 3 * 64 * 128 * 2


@pytest.mark.parametrize("kind", KINDS)
def test_products_of_shared_bytes_read_all_of_them(kind):
    """Another part each time, and each matrix of a part."""
    memory = Memory(1 << 22)
    products = Products(kind, 64, 128, 1, "stream", 1, memory, 1 << 22, 1 << 20)
    assert products.part_bytes <= 1 << 20 < products.part_bytes + matrix_step(kind, 64, 128)
    assert products.bytes_per_mac == products.part_bytes / (products.part * 64 * 128)
    assert products.multiply() > 0
    assert products.read(FEW[0]) > 0
    parts = (memory.reader.size - 64) // products.part_bytes
    assert len({memory.next_part(parts) for _ in range(parts)}) == parts


def test_a_round_runs_each_once():
    """And one round does not count."""
    calls = []

    def trial(name):
        return lambda: calls.append(name) or len(calls)

    values = interleaved([trial("a"), trial("b")], 2)
    assert calls == ["a", "b"] * 3
    assert values.tolist() == [[3, 5], [4, 6]]


def test_a_row_and_its_products_are_told_apart():
    """By rows of 768 and of 4096; a trial that was disturbed makes neither of them negative."""
    macs, row = measured.split(2e-12 + 3e-9 / 768, 2e-12 + 3e-9 / 4096)
    assert (macs, row) == (pytest.approx(2e-12), pytest.approx(3e-9))
    assert measured.split(1e-12, 2e-12) == (2e-12, 0)
    macs, row = measured.split(1e-9, 2e-12)
    assert macs == pytest.approx(1e-12)
    assert macs + row / 4096 == pytest.approx(2e-12)


def test_settling_ends(monkeypatch):
    """Once a barrier is quick, or when the time is over."""
    barriers = iter([1.0, 1.0, 1e-6, 1.0])
    monkeypatch.setattr(measured, "Turn", lambda run: lambda: next(barriers))
    measured.settle(2)
    assert next(barriers) == 1.0
    monkeypatch.setattr(measured, "_SETTLING", 0.0)
    monkeypatch.setattr(measured, "Turn", lambda run: lambda: 1.0)
    measured.settle(2)


def test_what_does_not_scale_is_measured_again(monkeypatch):
    """Threads that share a CPU read their own caches at a part of the pace; not for ever."""
    rates, calls = iter([100e9, 90e9, 180e9]), []
    plain = measured.Figures({}, {}, {}, {}, {}, 1e-6, {})

    def figures(memory, shared, threads):
        calls.append(threads)
        return plain._replace(rates={"L2": next(rates, 1e9)})

    monkeypatch.setattr(module, "measured", figures)
    monkeypatch.setattr(module, "Memory", lambda size: None)
    monkeypatch.setattr(module, "shared_cache", lambda memory, probe: None)
    monkeypatch.setattr(module, "has_own_caches", lambda: True)
    monkeypatch.setattr(module, "_kernels", lambda found, clock: {})
    module.calibrate([1, 2])
    assert calls == [1, 2, 2]
    module.calibrate([1, 2])
    assert calls[3:] == [1, 2, 2, 2]


@pytest.mark.slow
def test_attention_runs_on_zeros():
    """Every weight is the same, every value 0."""
    trial = Attention(64, 128, 2)
    trial.run(2)
    assert trial.macs == 2 * 64 * 128


@pytest.mark.parametrize(
    ("threads", "error"),
    [([0], ValueError), ([1, 10**9], ValueError), (["2"], TypeError), ([True], TypeError)],
)
def test_other_threads_are_refused(threads, error):
    """Before memory for that number is allocated."""
    with pytest.raises(error, match=r"^threads="):
        module.calibrate(threads, pytest.fail)


def test_threads_of_numpy_are_plain_in_a_profile():
    """TOML and JSON have no others."""
    counts = module.chosen_threads(np.array([2, 1, 2]))
    assert counts == [1, 2]
    assert {type(each) for each in counts} == {int}


@pytest.mark.parametrize("text", ["", "cpu MHz\t\t: 0.000\n", "cpu MHz : 1.2.3\n"])
def test_an_unknown_clock_is_assumed(text, monkeypatch):
    """Some virtual machines say 0; a rate a cycle of it would be infinite."""
    monkeypatch.setattr(module.Path, "read_text", lambda *_: text)
    hertz, source = internals.clock()
    assert hertz == 3e9
    assert source.startswith("assumed")


def test_a_clock_that_the_system_reports(monkeypatch):
    """In hertz."""
    monkeypatch.setattr(module.Path, "read_text", lambda *_: "cpu MHz\t\t: 2399.5\n")
    assert internals.clock() == (2399.5e6, "/proc/cpuinfo")
