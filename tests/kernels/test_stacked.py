"""Products with stacks of residual blocks: those of the dense matrix, bit for bit."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from ternops.decoder.stacked import ResidentStack
from ternops.kernels import reference
from ternops.kernels.call import Call
from ternops.kernels.linear import linear
from ternops.kernels.operands import OPERANDS
from ternops.memory import aligned_zeros
from ternops.stacks.decompose import decompose
from ternops.team import TEAM
from tests.helpers import cases

MARGIN = 3


def resident(rows, columns, blocks=3, rank=2, seed=5):
    return ResidentStack.of(list(decompose(cases.floats(rows, columns, seed=seed), blocks, rank)))


def product(stack, x, threads=1):
    """x @ S.T by the kernel; nothing around the result may change."""
    rows, tokens = stack.shape[0], len(x)
    call = Call.of(stack.operand, tokens, kind="one", out_stride=rows + MARGIN)
    memory = aligned_zeros(call.memory_bytes(threads), np.uint8)
    memory[:] = 255  # NaN, what another product left behind
    out = np.full((tokens, rows + MARGIN), -5, np.float32)
    record: Any = np.zeros((), OPERANDS)
    call.write(record.data.cast("B"), x.ctypes.data, out.ctypes.data, memory.ctypes.data, threads)
    TEAM.run(linear, record, threads)
    assert (out[:, rows:] == -5).all()
    return out[:, :rows]


@pytest.mark.parametrize("columns", [1, 7, 16, 100, 127, 250, 512, 513, 700, 1300])
@pytest.mark.parametrize("rows", [1, 5, 8, 27])
def test_product(rows, columns):
    """Every tail of columns within one_bit's shorter blocks, on one thread and on several."""
    stack = resident(rows, columns)
    dense = stack.to_dense()
    for tokens in (1, 2, 5):
        x = cases.floats(tokens, columns, seed=tokens)
        expected = reference.dot(dense, x[:, None])
        for threads in (1, 3):
            assert cases.same_bits(product(stack, x, threads), expected), (tokens, threads)


@pytest.mark.parametrize("rank", [1, 3, 16, 40])
def test_every_rank(rank):
    stack = resident(19, 600, blocks=2, rank=rank)
    x = cases.floats(2, 600, seed=1)
    assert cases.same_bits(product(stack, x), reference.dot(stack.to_dense(), x[:, None]))


def test_as_many_blocks_as_count():
    stack = resident(20, 90, blocks=4)
    x = cases.floats(3, 90, seed=2)
    whole, sizes = stack.to_dense(), set()
    for count in (4, 1, 3, 2):
        stack.count = count
        sizes.add(stack.nbytes)
        part = ResidentStack(stack.blocks[:count], 20, 90)
        expected = reference.dot(part.to_dense(), x[:, None])
        assert cases.same_bits(stack.to_dense(), part.to_dense())
        assert cases.same_bits(product(stack, x), expected)
        assert (count == 4) == np.array_equal(stack.to_dense(), whole)
    assert sizes == {count * stack.blocks[0].nbytes for count in range(1, 5)}


def test_a_copy_has_what_counts():
    stack = resident(20, 90, blocks=4)
    stack.count = 2
    copy = pickle.loads(pickle.dumps(stack))
    assert len(copy.blocks) == 2
    x = cases.floats(1, 90, seed=2)
    assert cases.same_bits(product(copy, x), product(stack, x))
