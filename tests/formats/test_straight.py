"""Blocks that become packed bytes without trits in between: the same matrix."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ternops import pack, set_num_threads
from ternops.decoder.formats import straight
from ternops.decoder.formats.codes import Code3
from ternops.decoder.formats.gguf import Gguf
from ternops.decoder.formats.scales import products
from ternops.encodings import PANELS
from tests.helpers import cases, gguf_files

CONFIG = replace(gguf_files.QWEN3, hidden=512, ffn=768)


def codes_of(trits, width):
    """Blocks of that many weights, without scales."""
    codes = (trits + 1).astype(np.uint8).reshape(len(trits), -1, width // 4, 4)
    return (codes << np.arange(0, 8, 2, dtype=np.uint8)).sum(axis=3, dtype=np.uint8)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("shape", [(16, 256), (48, 768), (16, 2560), (4096, 1280)])
def test_the_bytes(eager_threads, shape, width, threads):
    """Those that packing the trits gives."""
    trits = np.random.default_rng(0).integers(-1, 2, shape, np.int8)
    expected = PANELS["two_bit"].pack(trits)[: trits.size // 4]
    packed = np.zeros(trits.size // 4, np.uint8)
    with set_num_threads(threads):
        straight.pack_panels(codes_of(trits, width), packed)
    assert cases.same_bits(packed, expected)


def test_the_code_3():
    """In which row it is; of several, the last; in each place of a byte."""
    codes = codes_of(np.zeros((64, 512), np.int8), 128)
    codes[50, 3, 7] = codes[37, 1, 2] = 0b01_11_01_01
    with pytest.raises(Code3) as caught:
        straight.pack_panels(codes, np.zeros(64 * 128, np.uint8))
    assert caught.value.row == 50
    for shift in range(0, 8, 2):
        codes = codes_of(np.zeros((64, 512), np.int8), 64)
        codes[shift, shift, 15 - shift] |= 3 << shift
        with pytest.raises(Code3) as caught:
            straight.pack_panels(codes, np.zeros(64 * 128, np.uint8))
        assert caught.value.row == shift


def test_what_fits():
    """Whole panels and whole blocks."""
    assert straight.fits(32, 512)
    assert not straight.fits(24, 512)
    assert not straight.fits(32, 640)


def scales(rows, groups):
    """Random ones that float16 has."""
    found = np.random.default_rng(1).uniform(0.01, 1, (rows, groups))
    return found.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("kind", ["Q2_0", "Q2_0 of 128", "PQ2_0", "TQ2_0"])
@pytest.mark.parametrize("group", [64, 128, 256])
def test_matrices_of_files(tmp_path, monkeypatch, kind, group):
    """Trits, scales and their dtype are those of `pack`; groups of zeros have any scale."""
    values = gguf_files.random_values(CONFIG)
    trits = np.random.default_rng(0).integers(-1, 2, (512, 768), np.int8)
    trits[5] = 0
    trits[17, :256] = 0
    block = {"Q2_0": 64, "TQ2_0": 256}.get(kind, 128)
    weight = products(trits, scales(512, 768 // max(group, block)))
    path = gguf_files.write_gguf(
        tmp_path / "a.gguf", values, "qwen3", "F16", config=CONFIG,
        tensors={"blk.1.ffn_down.weight": (weight, kind)},
    )  # fmt: skip
    found = Gguf(path).matrix(1, "down", "two_bit")
    expected = pack(*Gguf(path).trits(1, "down"), "two_bit")
    assert found.group == expected.group == max(group, block)
    assert found.scale.dtype == expected.scale.dtype == np.float16
    assert cases.same_bits(found.scale, expected.scale)
    assert cases.same_bits(found.to_trits(), trits)
    assert cases.same_bits(found._packed.bytes, expected._packed.bytes)
    # It is the straight way that was taken, where there is one.
    calls = []
    monkeypatch.setattr(Gguf, "trits", lambda *_: calls.append(_) or (trits, np.float32([1] * 512)))
    Gguf(path).matrix(1, "down", "two_bit")
    assert bool(calls) == (kind == "TQ2_0")


def test_damage_is_named(tmp_path):
    """As if there were no straight way."""
    values = gguf_files.random_values(CONFIG)
    trits = np.random.default_rng(0).integers(-1, 2, (512, 768), np.int8)
    data = gguf_files.ternary_bytes(products(trits, scales(512, 12)), "Q2_0")
    for at, value, words in ((7, 0xFF, "the code 3 in row 9"), (1, 0x80, "the scale -")):
        changed = data.copy()
        changed[9, at] |= value
        path = gguf_files.write_gguf(
            tmp_path / "a.gguf", values, "qwen3", "F16", config=CONFIG,
            tensors={"blk.1.ffn_down.weight": (changed, "Q2_0")},
        )  # fmt: skip
        with pytest.raises(ValueError, match=rf"blk\.1\.ffn_down\.weight holds {words}"):
            Gguf(path).matrix(1, "down", "two_bit")
