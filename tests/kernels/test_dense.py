"""Products with float16, bfloat16, int8 and eight-bit float weights: the oracle's bits exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ternops.kernels import reference
from ternops.kernels.call import Call, Operand
from ternops.kernels.fp16 import KINDS
from ternops.kernels.linear import linear
from ternops.kernels.operands import OPERANDS
from ternops.kernels.plan import UNPACKED
from ternops.memory import aligned_zeros
from ternops.quantizers.fp8 import FORMATS, decode, encode
from ternops.team import TEAM
from tests.helpers import cases


def product(encoding, bits, columns, x, threads, scales=None):
    """x @ W.T, for rows of bits padded as the plan has them; nothing around it may change."""
    assert bits.strides[0] == UNPACKED[encoding].stride(columns)
    tokens, rows = len(x), len(bits)
    address = 0 if scales is None else scales.ctypes.data
    operand = Operand(encoding, bits.ctypes.data, bits.nbytes, rows, columns, address, 4)
    call = Call.of(operand, tokens, kind="one", out_stride=rows + 3)
    placed = aligned_zeros(call.placed_bytes // 4, np.float32)
    placed[...] = np.nan  # what a longer row left behind
    out = np.full((tokens, rows + 3), -5, np.float32)
    record: Any = np.zeros((), OPERANDS)
    call.write_apart(
        record.data.cast("B"), x.ctypes.data, out.ctypes.data, placed.ctypes.data, 0, 0, 0
    )
    TEAM.run(linear, record, threads)
    assert (out[:, rows:] == -5).all()
    return out[:, :rows]


def weights(encoding, rows, columns):
    """Padded bits of random weights, their values as float32, and the scales of int8."""
    padded = UNPACKED[encoding].stride(columns) // UNPACKED[encoding].itemsize
    dense = cases.floats(rows, columns).clip(-6e4, 6e4)
    if encoding in FORMATS:
        bits = aligned_zeros((rows, padded), np.uint8)
        bits[:, :columns] = encode(dense, FORMATS[encoding])
        return bits, decode(bits[:, :columns], FORMATS[encoding]), cases.scales(rows)["rows"]
    bits = aligned_zeros((rows, padded), np.int8 if encoding == "int8" else np.uint16)
    if encoding == "fp16":
        bits[:, :columns] = dense.astype(np.float16).view(np.uint16)
        return bits, bits[:, :columns].view(np.float16).astype(np.float32), None
    if encoding == "bf16":
        bits[:, :columns] = dense.view(np.uint32) >> 16
        return bits, (bits[:, :columns].astype(np.uint32) << 16).view(np.float32), None
    bits[:, :columns] = cases.activations(rows, columns)
    return bits, bits[:, :columns].astype(np.float32), cases.scales(rows)["rows"]


def oracle(encoding, bits, dense, scales, x):
    """What the product must be."""
    if encoding == "int8":
        return reference.int8_product(bits[:, : x.shape[1]], scales, x)
    if scales is None:
        return reference.dot(dense, x[:, None])
    return reference.float8_product(dense, KINDS[encoding].factor, scales, x)


@pytest.mark.parametrize("encoding", UNPACKED)
@pytest.mark.parametrize("rows", [*range(1, 14), 33])
def test_product(encoding, rows):
    """Every tail of rows, columns and tokens, on one thread and on several."""
    for columns in (1, 15, 31, 32, 33, 64, 65, 100, 1024):
        bits, dense, scales = weights(encoding, rows, columns)
        for tokens in (1, 2, 3, 4, 5, 8, 11, 13):
            x = cases.floats(tokens, columns, seed=tokens)
            expected = oracle(encoding, bits, dense, scales, x)
            for threads in (1, 3):
                found = product(encoding, bits, columns, x, threads, scales)
                assert cases.same_bits(found, expected), (columns, tokens, threads)


@pytest.mark.parametrize("encoding", UNPACKED)
def test_rows_of_several_panels(encoding):
    """More rows than stay in a cache together, the last panel shorter and no multiple of a tile."""
    bits, dense, scales = weights(encoding, 611, 1024)
    for tokens in (2, 5):
        x = cases.floats(tokens, 1024, seed=tokens)
        expected = oracle(encoding, bits, dense, scales, x)
        for threads in (1, 2):
            found = product(encoding, bits, 1024, x, threads, scales)
            assert cases.same_bits(found, expected), (tokens, threads)


@pytest.mark.parametrize("name", FORMATS)
def test_every_code(name):
    """Each of 256 codes but NaN and infinity, as a matrix of one column."""
    values = decode(np.arange(256, dtype=np.uint8), FORMATS[name])
    codes = np.flatnonzero(np.isfinite(values)).astype(np.uint8)
    bits = aligned_zeros((len(codes), UNPACKED[name].stride(1)), np.uint8)
    bits[:, 0] = codes
    for tokens in (1, 3):
        x, scales = np.ones((tokens, 1), np.float32), np.ones(len(codes), np.float32)
        found = product(name, bits, 1, x, 1, scales)
        assert (found == values[codes]).all()
