"""Calibration: a profile that can be used, whatever the machine's speed."""

import numpy as np
import pytest

from ternops.cost import calibrate as module
from ternops.cost import predict
from ternops.cost.layouts import SIZES
from ternops.cost.profile import parse
from ternops.cost.trials import Attention, Chain
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
        assert min(min(each.values) for each in (kernel.gemv, kernel.gemm, kernel.prepare)) > 0
        assert 0 < min(kernel.exposed.values) <= max(kernel.exposed.values) <= 1
    assert machine.levels[-1].name == "DRAM"
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
