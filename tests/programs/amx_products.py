"""Products and prompts on the amx tier's tiles, compared with the oracle; prints "exact".

python -m tests.programs.emulated_amx amx_products

or, on a CPU with AMX, without the emulation in front.
"""

from __future__ import annotations

import numpy as np

import ternops
from ternops.decoder import Session
from ternops.isa import HAS_TILES, detect
from ternops.kernels import reference
from tests.helpers import cases
from tests.helpers.small_models import small_config, small_model


def products(encoding: str) -> None:
    """Of shapes and batches on both sides of a tile, and of a long row of extremes."""
    for shape in ((1, 1), (15, 63), (16, 64), (33, 320), (70, 700), (130, 4099), (65, 9000)):
        trits = cases.trits(*shape)
        scale = cases.scales(shape[0])["rows"]
        matrix = ternops.pack(trits, scale, encoding)
        for m in (16, 17, 31, 32, 33, 70):
            x = cases.activations(m, shape[1])
            expected = reference.matmul_int32(x, trits)
            for threads in (1, 2):
                found = ternops.matmul(x, matrix.unscaled.T, threads=threads)
                assert cases.same_bits(found, expected), (encoding, shape, m, threads)
            scaled = expected.astype(np.float32) * scale
            assert cases.same_bits(ternops.matmul(x, matrix.T), scaled), (encoding, shape, m)
    trits = np.ones((40, 2**15 + 1), np.int8)
    x = np.full((33, 2**15 + 1), -128, np.int8)
    expected = reference.matmul_int32(x, trits)
    assert cases.same_bits(x @ ternops.pack(trits, encoding=encoding).T, expected), encoding


def blocks(encoding: str) -> None:
    """More tokens than a block, and results at any address."""
    for rows, columns in ((2064, 70), (50, 4099), (96, 9000)):
        trits, x = cases.trits(rows, columns), cases.activations(300, columns)
        matrix = ternops.pack(trits, encoding=encoding)
        expected = reference.matmul_int32(x, trits)
        assert cases.same_bits(ternops.matmul(x, matrix.T), expected), (encoding, rows)
        for shift in (0, 1, 4):
            room = np.zeros(300 * rows + 16, np.int32)
            out = room[shift : shift + 300 * rows].reshape(300, rows)
            ternops.matmul(x, matrix.T, out=out, threads=2)
            assert cases.same_bits(out, expected), (encoding, rows, shift)
            assert not room[:shift].any(), (encoding, rows, shift)
            assert not room[shift + 300 * rows :].any(), (encoding, rows, shift)


def prompts(encoding: str) -> None:
    """A prompt, read by tiles, against the same tokens one by one."""
    model = small_model(small_config("hidden 257", "bitnet", context=80), encoding)
    tokens, session = list(range(33)) + list(range(30)), Session(model)
    expected = np.stack([session.step(token).copy() for token in tokens])
    for lengths in ((63,), (17, 16, 30)):
        session, found = Session(model), []
        for count in lengths:
            part = tokens[session.position : session.position + count]
            found += list(session.extend(part, count).copy())
        assert cases.same_bits(np.stack(found), expected), (encoding, lengths)


if __name__ == "__main__":
    assert detect.TIER.name == "amx"
    assert HAS_TILES
    for each in ("two_bit", "base3", "tl1", "tl2"):
        products(each)
        blocks(each)
        prompts(each)
    print("exact")
