"""Sums that are looked up in tables, by each tier's shuffles: as NumPy adds them, modulo 2**16."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.encodings.unpack import lookup
from ternops.isa import u8
from ternops.simd import full, kernel, load, pointer, registers, store
from tests.helpers import cases

BYTES, SUM, SUMS = lookup.BYTES, lookup.SUM, lookup.SUMS


@kernel
def _pairs(lines, count, tables, target):
    sums = registers(SUM, SUMS)
    for i in range(SUMS):
        sums[i] = full(SUM, 0)
    for i in range(count):
        line = load(u8, pointer(lines) + i * BYTES)
        lookup.add_pair(sums, line, 0, pointer(tables) + 2 * i * 32)
        lookup.add_pair(sums, line, 1, pointer(tables) + (2 * i + 1) * 32)
    store(pointer(target), lookup.rows_of(sums))


@kernel
def _triples(lines, signs, count, tables, size, target):
    sums = registers(SUM, SUMS)
    for i in range(SUMS):
        sums[i] = full(SUM, 0)
    for i in range(count):
        for t in range(8):
            line = load(u8, pointer(lines) + (4 * i + t // 2) * BYTES)
            sign = load(u8, pointer(signs) + i * BYTES)
            table = pointer(tables) + (8 * i + t) * size
            lookup.add_triple(sums, line, t % 2, sign, t, table)
    store(pointer(target), lookup.rows_of(sums))


def in_memory(tables, with_negatives):
    """Tables (n, 16) of int16 as the kernels want them."""
    if not lookup.TABLE_OF_WORDS:
        halves = tables.view(np.uint8).reshape(len(tables), 16, 2)
        return np.ascontiguousarray(halves.transpose(0, 2, 1))
    return np.concatenate([tables, -tables], axis=1) if with_negatives else tables


def nibbles(lines):
    """Lines (n, BYTES) as their indices (2 n, BYTES), the low one of two first."""
    return np.stack([lines & 15, lines >> 4], axis=1).reshape(-1, BYTES)


def random(seed, count):
    """Lines, and a table for each of their indices: random, or all of one extreme."""
    generator = np.random.default_rng(seed)
    lines = generator.integers(0, 256, (count, BYTES), np.uint8)
    tables = generator.integers(-(2**15), 2**15, (2 * count, 16), np.int16)
    if seed % 2:
        tables[...] = (-(2**15), -1, 0, 1, 255, 256, -256, 2**15 - 1)[seed // 2 % 8]
    return lines, tables


@pytest.mark.parametrize("count", [0, 1, 2, 127])
def test_pairs(count):
    """Up to 254 look-ups: the low indices of a line in one table, the high ones in another."""
    for seed in range(20):
        lines, tables = random(seed, count)
        found = np.empty(BYTES, np.int16)
        _pairs(lines, count, in_memory(tables, False), found)
        looked_up = np.take_along_axis(tables, nibbles(lines).astype(np.intp), axis=1)
        assert cases.same_bits(found, looked_up.sum(axis=0, dtype=np.int16))


@pytest.mark.parametrize("count", [0, 1, 2, 15])
def test_triples(count):
    """Up to 120 look-ups, each with a sign of its own, all negative ones included."""
    for seed in range(20):
        lines, tables = random(seed, 4 * count)
        signs = random(seed + 100, count)[0] if seed % 3 else np.full((count, BYTES), 255, np.uint8)
        memory, found = in_memory(tables, True), np.empty(BYTES, np.int16)
        size = memory.nbytes // max(1, len(memory))
        _triples(lines, signs, count, memory, size, found)
        looked_up = np.take_along_axis(tables, nibbles(lines).astype(np.intp), axis=1)
        bits = np.unpackbits(signs[:, None], axis=1, bitorder="little").reshape(-1, BYTES)
        looked_up[bits == 1] *= -1
        assert cases.same_bits(found, looked_up.sum(axis=0, dtype=np.int16))
