"""calibrate --mpi: what is measured, and what goes to the profile."""

import types

import pytest

from ternops.commands import calibrate_mpi
from ternops.cost.known_links import load_link
from ternops.cost.measured_link import ELEMENTS, LinkFigures, measure_link, table_of
from ternops.cost.profile import load, save
from ternops.cost.tables import ProfileError
from tests.helpers.profiles import PROFILE

FOUND = LinkFigures(
    2, 40e-6, 1e9, 45e-6, tuple(50e-6 + 1e-9 * 4 * each for each in ELEMENTS), False
)


class World:
    """Two ranks, of which the other one answers at once, and one alone."""

    rank, Send, Recv, Barrier, Bcast, Allgatherv = 0, *(lambda self, *given: None,) * 5

    def __init__(self, size):
        self.size, self.aborted = size, []

    def Split_type(self, kind):
        return World(1)

    def Abort(self, code):
        self.aborted.append(code)


def module(size):
    """mpi4py's, as far as it is used."""
    return types.SimpleNamespace(
        COMM_WORLD=World(size), COMM_SELF=World(1), COMM_TYPE_SHARED=1, IN_PLACE=0, FLOAT=0
    )


def test_the_table_is_the_links(tmp_path):
    """As it is read again, by itself and with its machine."""
    path = tmp_path / "x.toml"
    save({**PROFILE, "link": table_of(FOUND)}, path)
    for link in (load_link(str(path)), load(path).link):
        assert link.latency_s == pytest.approx(40e-6)
        assert link.bytes_per_s == pytest.approx(1e9)
        assert not link.is_local
        for elements, seconds in zip(ELEMENTS, FOUND.gathers, strict=True):
            assert link.allgather_s(4 * elements, 2) == pytest.approx(seconds, rel=1e-3)
    assert load(path).levels == load(_without_link(tmp_path)).levels


def _without_link(folder):
    save(PROFILE, folder / "y.toml")
    return folder / "y.toml"


def test_figures_are_positive_whatever_the_clock_says():
    """Where messages take no time at all, a longer vector no less than a shorter one."""
    found = measure_link(module(2))
    assert found.ranks == 2
    assert not found.local
    assert found.latency > 0
    assert found.bandwidth > 0
    assert list(found.gathers) == sorted(found.gathers)
    assert found.gathers[0] > 0
    with pytest.raises(ValueError, match="expected mpirun -n 2"):
        measure_link(module(1))


def test_a_profile_gets_the_link(tmp_path, monkeypatch):
    """And keeps all else; lines say what was seen."""
    path, lines = _without_link(tmp_path), []
    monkeypatch.setattr(calibrate_mpi, "_mpi", lambda: module(2))
    monkeypatch.setattr("ternops.cost.measured_link.measure_link", lambda *given: FOUND)
    calibrate_mpi.calibrate(path, lines.append)
    assert load(path).link.latency_s == pytest.approx(40e-6)
    assert load(path).cores == load(_without_link(tmp_path / ".")).cores
    assert lines[0].startswith("2 ranks: latency 40.0 us, bandwidth 1 GB/s, barrier 45.0 us")
    assert lines[-1] == f"wrote {path}"
    assert len(lines) == 2 + len(ELEMENTS)


def test_all_ranks_end_where_there_is_no_profile(tmp_path, monkeypatch, capsys):
    """The others wait for the first one."""
    found = module(2)
    monkeypatch.setattr(calibrate_mpi, "_mpi", lambda: found)
    monkeypatch.setattr("ternops.cost.measured_link.measure_link", lambda *given: FOUND)
    calibrate_mpi.calibrate(tmp_path / "none.toml", print)
    assert found.COMM_WORLD.aborted == [2]
    error = capsys.readouterr().err
    assert error.startswith("ternops: error: rank 0: --output ")
    assert error.endswith("expected a profile that calibrate wrote before\n")


def test_one_rank_alone_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(calibrate_mpi, "_mpi", lambda: module(1))
    with pytest.raises(ValueError, match="--mpi: one rank alone, expected mpirun -n 2"):
        calibrate_mpi.calibrate(tmp_path / "none.toml", print)


def test_a_bad_link_in_a_profile_names_its_key(tmp_path):
    table = table_of(FOUND)
    table["latency"]["unit"] = "ms"
    with pytest.raises(ProfileError, match=r"link.latency: unit is 'ms', expected 'us'"):
        save({**PROFILE, "link": table}, tmp_path / "x.toml")
