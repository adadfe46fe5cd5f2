"""Energy of packed bytes in a memory whose cells cost by their pattern."""

import itertools

import numpy as np
import pytest

import ternops
from ternops.cost import stt_ram
from ternops.cost.profile import ProfileError
from ternops.cost.stt_ram import PatternMemory, best_codes, energy_of, histogram, load
from tests import cases

MEMORY = PatternMemory("made up", (1.0, 3.0, 4.0, 2.0), (5.0, 8.0, 7.0, 6.0), {})


def test_the_shipped_memory():
    """Two junctions alike are cheap, mixed ones dear."""
    memory = load()
    for energies in (memory.read, memory.write):
        alike, mixed = (energies[0], energies[3]), energies[1:3]
        assert max(alike) < min(mixed)
    assert len(memory.sources) == 8
    assert all(memory.sources.values())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_codes_are_counted_as_they_lie_in_bytes(bits):
    """Against taking every byte apart."""
    data = np.random.default_rng(0).integers(0, 256, 500, np.uint8)
    codes = [int(byte) >> at & (1 << bits) - 1 for byte in data for at in range(0, 8, bits)]
    expected = np.bincount(codes, minlength=1 << bits)
    assert histogram(data, bits).tolist() == expected.tolist()


def test_a_byte_costs_what_its_four_cells_do():
    """0b11_10_01_00: 2 + 4 + 3 + 1."""
    assert energy_of(MEMORY, np.array([0b11100100], np.uint8)) == 10
    assert energy_of(MEMORY, np.array([0b11100100, 0], np.uint8), "write") == 26 + 20


@pytest.mark.parametrize("what", ["read", "write"])
def test_no_choice_of_two_bit_codes_is_cheaper(what):
    """All 24 were tried."""
    data = np.random.default_rng(1).choice(np.array([0, 1, 2, 0x55, 0xAA], np.uint8), 300)
    found = best_codes(MEMORY, data, 2, what)
    counts = histogram(data, 2)
    energies = np.array(getattr(MEMORY, what))
    costs = [counts @ energies[list(order)] for order in itertools.permutations(range(4))]
    assert getattr(found, what) == min(costs)
    assert sorted(found.patterns) == [0, 1, 2, 3]


@pytest.mark.parametrize("encoding", list(stt_ram.CODE_BITS))
def test_best_codes_of_real_bytes(encoding):
    """Never dearer, a permutation, and what they claim when the bytes are written with them."""
    memory, bits = load(), stt_ram.CODE_BITS[encoding]
    data = ternops.pack(cases.trits(64, 640), 1.0, encoding)._packed.bytes
    found = best_codes(memory, data, bits)
    assert found.read <= energy_of(memory, data)
    assert sorted(found.patterns) == list(range(1 << bits))
    recoded = np.zeros_like(data)
    for at in range(0, 8, bits):
        recoded |= (np.array(found.patterns)[data >> at & (1 << bits) - 1] << at).astype(np.uint8)
    assert energy_of(memory, recoded) == pytest.approx(found.read)
    assert energy_of(memory, recoded, "write") == pytest.approx(found.write)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[read]", "read.00: missing"),
        ('[read]\n"00" = {value = -1, unit = "pJ", source = "x"}', "read.00: value is -1"),
        ('[read]\n"00" = {value = 1, unit = "nJ", source = "x"}', "unit is 'nJ', expected 'pJ'"),
        ("[", "no TOML file"),
    ],
)
def test_a_bad_memory_profile(tmp_path, text, words):
    """The file and the key."""
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(ProfileError, match=words):
        load(path)
