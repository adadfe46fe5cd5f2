"""float16 and bfloat16 become float32 and back exactly as NumPy rounds, instruction or not."""

from __future__ import annotations

import numpy as np
import pytest

from ternops import simd
from ternops.simd import portable, vector
from ternops.simd.vector import kernel, load, pointer, store
from tests import cases


def adversarial_floats():
    """float32 around every rounding boundary of float16, and a random sample of all bits."""
    half = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middle = (half[:-1] + half[1:]) / 2  # exact: float32 has bits to spare
    near = np.concatenate([half, middle, cases.SPECIALS, np.float32([65519.99, 65520, 65535, 1e5])])
    with np.errstate(over="ignore"):
        near = np.concatenate([near, np.nextafter(near, np.inf), np.nextafter(near, -np.inf)])
    any_bits = np.random.default_rng(0).integers(0, 2**32, 200_000, np.uint32).view(np.float32)
    every = np.concatenate([near, -near, any_bits])
    return every[: len(every) // 16 * 16].astype(np.float32)


@pytest.mark.parametrize("name", ["load_f16", "portable"])
def test_every_half_widens_exactly(name):
    """All 65536 float16, by the tier's conversion and by the portable one."""
    widen = {
        "load_f16": simd.load_f16,
        "portable": vector.inlined(lambda source: portable.widen_half(load(simd.u16, source))),
    }[name]

    @kernel
    def run(source, target, count):
        for i in range(0, count, 16):
            store(pointer(target) + 4 * i, widen(pointer(source) + 2 * i))

    bits, found = np.arange(65536, dtype=np.uint16), np.empty(65536, np.float32)
    run(bits, found, 65536)
    assert cases.same_bits(found, bits.view(np.float16).astype(np.float32))


@pytest.mark.parametrize("name", ["store_f16", "portable"])
def test_floats_narrow_to_half_as_numpy_does(name):
    """Ties to even, subnormals, overflow to infinity; NaN stays NaN."""
    narrow = {
        "store_f16": simd.store_f16,
        "portable": vector.inlined(lambda target, x: store(target, portable.narrow_half(x))),
    }[name]

    @kernel
    def run(source, target, count):
        for i in range(0, count, 16):
            narrow(pointer(target) + 2 * i, load(simd.f32, pointer(source) + 4 * i))

    x = adversarial_floats()
    found = np.empty(len(x), np.uint16)
    run(x, found, len(x))
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16)
    assert cases.same_bits(found.view(np.float16), expected)


def test_bfloat16_widens_exactly():
    """load_bf16 of all 65536 patterns is the upper half of a float32."""

    @kernel
    def run(source, target, count):
        for i in range(0, count, 16):
            store(pointer(target) + 4 * i, simd.load_bf16(pointer(source) + 2 * i))

    bits, found = np.arange(65536, dtype=np.uint16), np.empty(65536, np.float32)
    run(bits, found, 65536)
    assert (found.view(np.uint32) == bits.astype(np.uint32) << 16).all()
