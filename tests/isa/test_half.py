"""float16 and bfloat16 become exactly the float32 of NumPy, with an instruction or without."""

from __future__ import annotations

import numpy as np
import pytest

from ternops import isa, simd
from ternops.isa import portable
from ternops.quantizers.fp8 import FORMATS, decode
from ternops.simd import kernel, load, pointer, store
from tests.helpers import cases


@pytest.mark.parametrize("name", ["load_fp16", "portable"])
def test_every_half_widens_exactly(name):
    """All 65536 float16, by the tier's conversion and by the portable one."""
    widen = {
        "load_fp16": isa.load_fp16,
        "portable": simd.inlined(lambda source: portable.widen_half(load(simd.u16, source))),
    }[name]

    @kernel
    def run(source, target, count):
        for i in range(0, count, 16):
            store(pointer(target) + 4 * i, widen(pointer(source) + 2 * i))

    bits, found = np.arange(65536, dtype=np.uint16), np.empty(65536, np.float32)
    run(bits, found, 65536)
    assert cases.same_bits(found, bits.view(np.float16).astype(np.float32))


def test_bfloat16_widens_exactly():
    """load_bf16 of all 65536 patterns is the upper half of a float32."""

    @kernel
    def run(source, target, count):
        for i in range(0, count, 16):
            store(pointer(target) + 4 * i, simd.load_bf16(pointer(source) + 2 * i))

    bits, found = np.arange(65536, dtype=np.uint16), np.empty(65536, np.float32)
    run(bits, found, 65536)
    assert (found.view(np.uint32) == bits.astype(np.uint32) << 16).all()


@pytest.mark.parametrize("name", ["to_half", "portable"])
def test_every_float_narrows_as_in_numpy(name):
    """Rounded to even at every border between two float16, below and above float16's range."""
    narrow = {"to_half": isa.to_half, "portable": portable.narrow_half}[name]

    @kernel
    def run(source, target, count):
        for i in range(0, count, 16):
            store(pointer(target) + 2 * i, narrow(load(simd.f32, pointer(source) + 4 * i)))

    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middle = (halves[:-1] + halves[1:]) / 2
    values = np.concatenate([halves, middle, np.nextafter(middle, 0), np.nextafter(middle, 1e9)])
    random = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    values = np.concatenate([values, random, random * 1e-7, cases.SPECIALS, np.full(16, 1e30)])
    if name == "portable":  # which is not asked for more
        values = values[~(np.abs(values) > 65504)]
    values = np.concatenate([values, -values]).astype(np.float32)
    values = values[: len(values) // 16 * 16]
    found = np.empty(len(values), np.uint16)
    run(values, found, len(values))
    expected = np.clip(values, -65504, 65504).astype(np.float16)
    assert cases.same_bits(found.view(np.float16), expected)


@pytest.mark.parametrize(("name", "factor"), [("load_e4m3", 256), ("load_e5m2", 1)])
def test_every_float_of_eight_bits_widens_exactly(name, factor):
    """All 256 codes, but for NaN of E4M3: of these a 256th each."""
    widen = getattr(isa, name)

    @kernel
    def run(source, target, count):
        for i in range(0, count, 16):
            store(pointer(target) + 4 * i, widen(pointer(source) + i))

    codes, found = np.arange(256, dtype=np.uint8), np.empty(256, np.float32)
    run(codes, found, 256)
    expected = decode(codes, FORMATS[name.removeprefix("load_")])
    known = ~np.isnan(expected) if factor > 1 else slice(None)
    assert cases.same_bits(found[known] * np.float32(factor), expected[known])
