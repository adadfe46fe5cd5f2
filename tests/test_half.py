"""float16 and bfloat16 become exactly the float32 of NumPy, with an instruction or without."""

from __future__ import annotations

import numpy as np
import pytest

from ternops import simd
from ternops.simd import portable, vector
from ternops.simd.vector import kernel, load, pointer, store
from tests import cases


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


def test_bfloat16_widens_exactly():
    """load_bf16 of all 65536 patterns is the upper half of a float32."""

    @kernel
    def run(source, target, count):
        for i in range(0, count, 16):
            store(pointer(target) + 4 * i, simd.load_bf16(pointer(source) + 2 * i))

    bits, found = np.arange(65536, dtype=np.uint16), np.empty(65536, np.float32)
    run(bits, found, 65536)
    assert (found.view(np.uint32) == bits.astype(np.uint32) << 16).all()
