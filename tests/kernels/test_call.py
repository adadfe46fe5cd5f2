"""Operand records: what a product writes besides its result stays within its bounds."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.encodings import ENCODINGS
from ternops.kernels import reference
from ternops.kernels.call import Call, Operand
from ternops.kernels.linear import linear
from ternops.kernels.operands import OPERANDS
from ternops.memory import aligned_empty
from ternops.team import TEAM
from tests.helpers import cases

_ROWS, _COLUMNS, _SENTINEL = 37, 333, 0x5A5A5A5A


@pytest.mark.parametrize(("encoding", "kind"), cases.KINDS)
def test_a_token_writes_its_own_offset_and_step_only(encoding, kind):
    """One more byte would be the next token's, which another thread may have written already."""
    tokens = 1 if kind in cases.OF_ONE_TOKEN else 7
    trits = cases.trits(_ROWS, _COLUMNS, encoding=encoding)
    x = -np.abs(cases.activations(tokens, _COLUMNS).clip(-127)).astype(np.int8)  # negative sums
    packed = ENCODINGS[encoding].pack(trits)
    operand = Operand(encoding, packed.ctypes.data, packed.nbytes, _ROWS, _COLUMNS)
    call = Call.of(operand, tokens, is_float=False, kind=kind)
    # Those that fill up a tile have their own as well.
    count = call.offsets_bytes // 4
    offsets, steps = (np.full(count + 2, _SENTINEL, np.int32) for _ in range(2))
    placed, scratch = (
        aligned_empty(size + 64, np.uint8) for size in (call.placed_bytes, call.scratch_bytes)
    )
    out, record = np.empty((tokens, _ROWS), np.int32), np.zeros((), OPERANDS)
    call.write_apart(
        record.data.cast("B"), x.ctypes.data, out.ctypes.data, placed.ctypes.data,
        offsets.ctypes.data, steps.ctypes.data, scratch.ctypes.data,
    )  # fmt: skip
    TEAM.run(linear, record, 1)
    assert cases.same_bits(out, reference.matmul_int32(x, trits))
    for each in (offsets, steps):
        assert (each[count:] == _SENTINEL).all()
