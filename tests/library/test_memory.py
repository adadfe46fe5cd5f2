"""Arrays of an arena: aligned, apart, and as long as they are there, their memory is."""

from __future__ import annotations

import gc

import numpy as np

import ternops
from ternops.memory import HUGE, Arena, mapped_zeros
from tests.helpers import cases, internals


def test_arrays_of_an_arena_are_aligned_and_apart():
    """Whatever sizes are asked for, across the ends of its slabs; writing one changes no other."""
    arena, random = Arena(), np.random.default_rng(0)
    sizes = [*random.integers(0, 5000, 200), *random.integers(1 << 20, HUGE, 60), HUGE, HUGE + 1]
    arrays = [arena.empty(int(size), np.uint8) for size in sizes]
    for i, array in enumerate(arrays):
        assert array.ctypes.data % 64 == 0
        array[...] = i % 251
    del arena
    gc.collect()
    for i, (array, size) in enumerate(zip(arrays, sizes, strict=True)):
        assert len(array) == size
        assert (array == i % 251).all()


def test_a_matrix_that_moved_is_the_same():
    """Its trits, scale and transposition; its bytes are others."""
    arena = Arena()
    for encoding in cases.ENCODINGS:
        trits = cases.trits(70, 101, encoding=encoding)
        matrix = ternops.pack(trits, np.ones(70, np.float32), encoding).T
        moved = matrix.moved(arena)
        assert repr(moved) == repr(matrix)
        assert (moved.to_trits() == matrix.to_trits()).all()
        before, after = (internals.packed(each).operand for each in (matrix, moved))
        assert after.address != before.address


def test_mapped_zeros():
    """Zeros that may be written, apart, at the boundary of a huge page where they fill one."""
    sizes = [1, 100, 1 << 17, (1 << 21) - 1, 1 << 21, (1 << 21) + 1, 5 << 20]
    for size in sizes:
        first, second = mapped_zeros(size), mapped_zeros(size)
        assert first.shape == (size,)
        assert first.dtype == np.uint8
        assert first.ctypes.data % (1 << 21 if size >= 1 << 21 else 64) == 0
        first[:] = 1
        assert not second.any()
