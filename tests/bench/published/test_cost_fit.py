"""The cost model against published figures: what is fitted, and how far the rest is off."""

import math
from types import MappingProxyType

import pytest

from bench.published import cost_fit, paper
from ternops.cost import arithmetic

HELD_OUT = [size for size in paper.DECODE["x86"] if size != cost_fit.FITTED]


class Unread(paper.Published):
    """A row whose ternary speed may not be read."""

    @property
    def ternary(self):
        raise AssertionError("a held-out row was read")


@pytest.fixture
def sealed(monkeypatch):
    """Every ternary row but the fitted one is closed."""
    for arch, table in paper.DECODE.items():
        closed = {
            size: row if size == cost_fit.FITTED else Unread(row.fp16, math.nan)
            for size, row in table.items()
        }
        monkeypatch.setitem(paper.DECODE, arch, closed)


@pytest.mark.parametrize("arch", list(cost_fit.MACHINES))
def test_fitting_reads_no_row_that_is_held_out(arch, sealed):
    """The same fit with all other ternary rows closed; predicting then is what opens them."""
    fit = cost_fit.fit(arch)
    assert fit.rate > 0
    with pytest.raises(AssertionError, match="held-out"):
        cost_fit.speeds(arch)


@pytest.mark.parametrize("arch", list(cost_fit.MACHINES))
def test_the_fit_is_that_of_the_sealed_rows(arch, monkeypatch):
    """Other figures in the held-out rows change no parameter."""
    before = cost_fit.fit(arch)
    table = {
        size: row if size == cost_fit.FITTED else paper.Published(row.fp16, 1.0)
        for size, row in paper.DECODE[arch].items()
    }
    monkeypatch.setitem(paper.DECODE, arch, table)
    assert cost_fit.fit(arch) == before


def test_power_is_fitted_on_fp16_alone(monkeypatch):
    """The ternary joules change nothing."""
    for arch in cost_fit.MACHINES:
        before, _ = cost_fit.savings(arch)
        table = {size: row._replace(ternary=1e-3) for size, row in paper.ENERGY[arch].items()}
        monkeypatch.setitem(paper.ENERGY, arch, table)
        assert cost_fit.savings(arch)[0] == before


def test_the_fitted_row_is_met():
    """By the kernel's rate, and by it alone."""
    for arch in cost_fit.MACHINES:
        _, _, rows = cost_fit.speeds(arch)
        (row,) = [each for each in rows if each.fitted]
        assert row.size == cost_fit.FITTED
        assert row.predicted == pytest.approx(row.published, rel=1e-6)


def test_a_made_up_column_gives_its_parameters():
    """100 GB/s and 50 us a layer come out again."""
    column = {
        size: 1 / (cost_fit.token_bytes(size, "fp16") / 100e9 + cost_fit.SIZES[size].layers * 5e-5)
        for size in ("125M", "1B", "7B")
    }
    fit = cost_fit.fit_fp16(MappingProxyType(column))
    assert fit.bandwidth == pytest.approx(100e9)
    assert fit.overhead == pytest.approx(5e-5)


# What the model reaches, so that a change that makes it worse is seen.
@pytest.mark.parametrize(("arch", "middle", "worst"), [("x86", 0.10, 0.15), ("arm", 0.20, 0.41)])
def test_the_papers_ternary_speeds(arch, middle, worst):
    """Median and worst error of the rows that were not fitted."""
    _, _, rows = cost_fit.speeds(arch)
    found = cost_fit.errors(rows)
    assert found[0] <= middle
    assert found[1] <= worst


@pytest.mark.parametrize(("arch", "points"), [("x86", 4), ("arm", 12)])
def test_the_papers_energy_savings(arch, points):
    """In percentage points of every row that has both energies."""
    _, rows = cost_fit.savings(arch)
    shown = [row for row in rows if row.fp16]
    assert len(shown) == {"x86": 2, "arm": 3}[arch]
    for row in shown:
        assert abs(row.predicted - row.saved) <= points


@pytest.mark.parametrize("name", list(paper.REPORT))
def test_the_reports_energy_column(name):
    """To three decimals."""
    each = paper.REPORT[name]
    kind = "ternary" if each.is_ternary else "fp16"
    assert round(arithmetic.report_joules(each.decoder, kind), 3) == each.joules


def test_the_arithmetic_ratio():
    """0.5 over 0.007 picojoules."""
    assert arithmetic.ternary_saving() == pytest.approx(0.5 / 0.007)
    assert round(arithmetic.ternary_saving(), 1) == 71.4


@pytest.mark.parametrize("name", list(paper.THREADS))
def test_generation_saturates_where_it_was_published_to(name):
    """Within one step of the thread counts."""
    assert cost_fit.off_by(cost_fit.steps(name)) <= 1


def test_saturation_is_the_first_count_that_is_nearly_best():
    """Of speeds by threads, counted from 0."""
    assert cost_fit.saturation({1: 10.0, 2: 19.0, 4: 20.0}) == 1
    assert cost_fit.saturation({1: 10.0, 2: 18.0, 4: 20.0}) == 2
