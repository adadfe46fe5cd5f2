"""Links between ranks: what messages and collectives take, and where the figures come from."""

import pytest

from ternops.cost.known_links import load_link, shipped
from ternops.cost.link import LONG, SHORT, Link, doublings
from ternops.cost.tables import ProfileError

LINK = Link("a link", 1e-3, 1e6)


def test_these_are_shipped():
    """By the names that people type; a faster one is no slower in either figure."""
    links = shipped()
    assert list(links) == ["1GbE", "10GbE", "100GbE", "IB", "shm"]
    ethernet = [links[name] for name in ("1GbE", "10GbE", "100GbE", "IB")]
    assert sorted(ethernet, key=lambda each: each.bytes_per_s) == ethernet
    assert sorted(ethernet, key=lambda each: -each.latency_s) == ethernet
    assert [each.name for each in links.values() if each.is_local] == ["shm"]


def test_a_message_takes_its_latency_and_its_bytes():
    assert LINK.message_s(0) == 1e-3
    assert LINK.message_s(2000) == pytest.approx(3e-3)


@pytest.mark.parametrize(
    ("ranks", "steps"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (7, 3), (8, 3), (512, 9)]
)
def test_parts_double(ranks, steps):
    """Short vectors: as many messages as doublings, and all bytes that a rank has not itself."""
    assert doublings(ranks) == steps
    expected = steps * 1e-3 + 800 * (ranks - 1) / ranks / 1e6
    assert LINK.allgather_s(800, ranks) == pytest.approx(expected)
    assert LINK.gather_s(800, ranks) == pytest.approx(expected)


def test_long_vectors_go_round():
    """From one rank to the next, as many times as there are others; later for powers of two."""
    assert LINK.allgather_s(SHORT, 6) == pytest.approx(5e-3 + SHORT * 5 / 6 / 1e6)
    assert LINK.allgather_s(SHORT, 8) == pytest.approx(3e-3 + SHORT * 7 / 8 / 1e6)
    assert LINK.allgather_s(LONG, 8) == pytest.approx(7e-3 + LONG * 7 / 8 / 1e6)


def test_measured_collectives_come_first():
    """For their number of ranks, up to the longest vector that was measured."""
    link = Link("measured", 1e-3, 1e6, gathers={2: ((1000, 3000), (4e-3, 8e-3))})
    assert link.allgather_s(2000, 2) == pytest.approx(6e-3)
    assert link.allgather_s(10, 2) == pytest.approx(4e-3)
    assert link.allgather_s(4000, 2) == LINK.allgather_s(4000, 2)
    assert link.allgather_s(2000, 4) == LINK.allgather_s(2000, 4)


@pytest.mark.parametrize(
    ("name", "latency", "rate"),
    [("1ms,1Gbit/s", 1e-3, 125e6), ("20 us, 2.5 GB/s", 20e-6, 2.5e9), ("500ns,100MB/s", 5e-7, 1e8)],
)
def test_two_figures_are_a_link(name, latency, rate):
    found = load_link(name)
    assert (found.latency_s, found.bytes_per_s) == (pytest.approx(latency), pytest.approx(rate))
    assert not found.is_local


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("2GbE", "expected 1GbE, 10GbE"), ("1ms", "LATENCY,RATE"), ("1ms,fast", "LATENCY,RATE"),
        ("1,2", "LATENCY,RATE"), ("-1ms,1Gbit/s", "expected 1e-09 to 10 s"),
        ("nanms,1Gbit/s", "expected 1e-09 to 10 s"), ("1ms,0GB/s", "expected 1000 to 1e+13 B/s"),
    ],
)  # fmt: skip
def test_a_bad_name_is_one_line(name, words):
    with pytest.raises(ProfileError, match=r"^link ") as caught:
        load_link(name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_name():
    with pytest.raises(TypeError, match="link=7: expected a name"):
        load_link(7)


_FILE = """
[link]
latency = { value = 40, unit = "us", source = "a test" }
bandwidth = { value = 1.0, unit = "GB/s", source = "a test" }
local = false
[link.allgather]
ranks = 2
time = { value = [50, 60], bytes = [1000, 9000], unit = "us", source = "a test" }
"""


def test_a_link_in_a_file(tmp_path):
    """As calibrate writes it."""
    path = tmp_path / "machine.toml"
    path.write_text(_FILE)
    found = load_link(str(path))
    assert (found.latency_s, found.bytes_per_s) == (pytest.approx(40e-6), 1e9)
    assert found.allgather_s(5000, 2) == pytest.approx(55e-6)
    for old, new, words in (
        ("[1000, 9000]", "[9000, 1000]", "expected rising counts"),
        ("[1000, 9000]", "[1000]", "expected a count for each value"),
        ("ranks = 2", "ranks = 2\nmore = 1", "link.allgather.more: unknown"),
        ("[link]\n", "[other]\n", "link.latency: missing"),
    ):
        path.write_text(_FILE.replace(old, new, 1))
        with pytest.raises(ProfileError) as caught:
            load_link(str(path))
        assert words in str(caught.value)
    path.write_text(_FILE.replace("link", "other"))
    with pytest.raises(ProfileError, match="link: missing, expected what calibrate --mpi writes"):
        load_link(str(path))
