"""Energy of packed bytes in a memory whose cells cost by their pattern."""

import itertools

import numpy as np
import pytest

import ternops
from ternops.cost import stt_ram
from ternops.cost.stt_ram import PatternMemory, best_codes, energy_of, histogram, load
from ternops.cost.tables import ProfileError
from tests.helpers import cases, internals

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
    data = internals.packed(ternops.pack(cases.trits(64, 640), 1.0, encoding)).bytes
    found = best_codes(memory, data, bits)
    assert found.read <= energy_of(memory, data)
    assert sorted(found.patterns) == list(range(1 << bits))
    recoded = np.zeros_like(data)
    for at in range(0, 8, bits):
        recoded |= (np.array(found.patterns)[data >> at & (1 << bits) - 1] << at).astype(np.uint8)
    assert energy_of(memory, recoded) == pytest.approx(found.read)
    assert energy_of(memory, recoded, "write") == pytest.approx(found.write)


MEMORY_FILE = "name = 'x'\n" + "".join(
    f"[{what}]\n" + "".join(
        f"'{pattern}' = {{ value = 1, unit = 'pJ', source = 'a test' }}\n"
        for pattern in stt_ram.PATTERNS
    )
    for what in ("read", "write")
)  # fmt: skip


def test_a_memory_profile_of_ones_own(tmp_path):
    """In joules."""
    path = tmp_path / "m.toml"
    path.write_text(MEMORY_FILE)
    assert load(path).read == load(path).write == (1e-12,) * 4


@pytest.mark.parametrize("bits", [3, 16, 0])
def test_other_codes_are_refused(bits):
    """Bytes hold no whole number of them."""
    with pytest.raises(ValueError, match=f"bits={bits}: expected 2, 4 or 8"):
        histogram(np.zeros(4, np.uint8), bits)


@pytest.mark.parametrize("data", [np.full(3, 300, np.int32), np.zeros(3), b"abc"])
def test_other_data_are_refused(data):
    """Patterns are of bytes."""
    with pytest.raises(TypeError, match="data: expected a uint8 array"):
        energy_of(MEMORY, data)


def test_other_energies_are_refused():
    """There are two."""
    data = np.zeros(4, np.uint8)
    for call in (lambda: energy_of(MEMORY, data, "name"), lambda: best_codes(MEMORY, data, 2, "x")):
        with pytest.raises(ValueError, match=r"what='(name|x)': expected 'read' or 'write'"):
            call()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[read]", "read.00: missing"),
        ('[read]\n"00" = {value = -1, unit = "pJ", source = "x"}', "read.00: value is -1"),
        ('[read]\n"00" = {value = 1, unit = "nJ", source = "x"}', "unit is 'nJ', expected 'pJ'"),
        ("[", "no TOML file"),
        ("a = " + "[" * 5000 + "]" * 5000, "no TOML file"),
        (MEMORY_FILE.replace("[read]", "reed = 1\n[read]"), "reed: unknown"),
        (MEMORY_FILE.replace("[read]", "[read]\n'02' = 1"), "read.02: unknown"),
        (MEMORY_FILE.replace("name = 'x'", ""), "name: is None, expected a text"),
    ],
)
def test_a_bad_memory_profile(tmp_path, text, words):
    """The file and the key."""
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(ProfileError, match=words):
        load(path)
