"""A cache of keys and values of 3 bits, with a step a head and position, as BitNet a4.8 has it.

Layout: 8 codes are 24 bits: of a key 8 dimensions, their three bytes 16 apart among those of a
block's other positions; of a value 8 dimensions, three bytes in a row. Trick: lanes are positions,
and a shift of all words gives the next dimension; of a value each lane shifts its word by its own
number. Bound: that of `attention`; 3 operations more for 16 elements, a fifth of its bytes.
"""

import numpy as np

from ternops.kernels.attention import (
    BLOCK,
    CHUNK,
    MIN_CACHED,
    POSITIONS,
    Elements,
    make_attend,
    make_parts,
)
from ternops.kernels.elementwise import largest_magnitude, read
from ternops.kernels.reference import ROUNDER
from ternops.kernels.reference_low import MIDDLE
from ternops.simd import (
    Vector,
    bitcast,
    concatenate,
    constant,
    convert,
    f32,
    fma,
    full,
    i8x16,
    i32x16,
    inlined,
    kernel,
    load,
    registers,
    store,
)

_BITS, _CODE = 3, 7
_TOGETHER = 8  # codes of a word
_WORD = _TOGETHER * _BITS // 8  # its bytes
_CHUNK_BYTES = CHUNK * _BITS // 8
_ROUNDER_BITS = int(ROUNDER.view(np.int32))
_u8x16, _i32x8 = Vector("u8", BLOCK), Vector("i32", _TOGETHER)
_shifts = constant(i32x16, [i % _TOGETHER * _BITS for i in range(BLOCK)])


@kernel
def quantize_row_i3(x, count, floor, target):
    """float32 (count,) -> codes, a byte each, in whole vectors; returns the step.

    As `reference_low.quantize_three_bits`.
    """
    largest = largest_magnitude(x, count)
    absmax = largest
    if not absmax >= floor:
        absmax = np.float32(floor)
    factor = full(f32, MIDDLE / absmax)
    for i in range(0, count, BLOCK):
        rounded = read(x, i, count) * factor + MIDDLE + ROUNDER
        store(target + i, convert(i8x16, (bitcast(i32x16, rounded) - _ROUNDER_BITS) & _CODE))
    step = absmax / MIDDLE
    if not largest < np.inf:
        step = np.float32(np.nan)
    return step


@inlined
def _word(codes):
    """8 codes of a byte each as 24 bits, the first one lowest."""
    word = load(np.int64, codes)
    word = (word | word >> 5) & 0x003F003F003F003F
    word = (word | word >> 10) & 0x00000FFF00000FFF
    return word | word >> 20


@inlined
def _store_word(target, stride, word):
    for i in range(_WORD):
        store(target + i * stride, np.int8(word >> 8 * i))


@inlined
def _levels(words):
    """What the lowest code of each lane stands for, in steps."""
    return convert(f32, words & _CODE) - MIDDLE


@inlined
def _key_words(place):
    """Words of 16 positions, a lane each."""
    high = convert(i32x16, load(_u8x16, place + 2 * BLOCK)) << 16
    middle = convert(i32x16, load(_u8x16, place + BLOCK)) << 8
    return convert(i32x16, load(_u8x16, place)) | middle | high


@inlined
def _value_levels(place, shifts):
    """16 dimensions of a position. A byte too much is read behind them."""
    low = full(_i32x8, load(np.int32, place))
    return _levels(concatenate(low, full(_i32x8, load(np.int32, place + _WORD))) >> shifts)


def make_scores(rows, blocks):
    """As `attention.make_scores`."""
    count = rows * blocks

    @inlined
    def scores(queries, keys, head_dim, out, stride):
        sums, words = registers(f32, count), registers(i32x16, blocks)
        for i in range(count):
            sums[i] = full(f32, 0.0)
        block = (head_dim + _TOGETHER - 1) // _TOGETHER * BLOCK * _WORD
        for d in range(0, head_dim, _TOGETHER):
            for b in range(blocks):
                words[b] = _key_words(keys + (b * block + d * BLOCK * _BITS // 8))
            for i in range(d, min(d + _TOGETHER, head_dim)):
                for b in range(blocks):
                    key = _levels(words[b])
                    words[b] = words[b] >> _BITS
                    for r in range(rows):
                        query = full(f32, load(np.float32, queries + 4 * (r * head_dim + i)))
                        sums[r * blocks + b] = fma(key, query, sums[r * blocks + b])
        for r in range(rows):
            for b in range(blocks):
                store(out + 4 * (r * stride + b * BLOCK), sums[r * blocks + b])

    return scores


def make_weigh(rows):
    """As `attention.make_weigh`."""

    @inlined
    def weigh(weights, stride, values, positions, sums):
        shifts = _shifts()
        for position in range(positions):
            value = values + position * _CHUNK_BYTES
            low = _value_levels(value, shifts)
            high = _value_levels(value + 2 * _WORD, shifts)
            for r in range(rows):
                weight = full(f32, load(np.float32, weights + 4 * (r * stride + position)))
                sums[2 * r] = fma(weight, low, sums[2 * r])
                sums[2 * r + 1] = fma(weight, high, sums[2 * r + 1])

    return weigh


INT3 = Elements(_BITS, _TOGETHER, True, make_scores, make_weigh)
_parts = make_parts(INT3)
_values, _key_steps, _value_steps = _parts.values, _parts.key_steps, _parts.value_steps


@inlined
def append_i3(key, value, head_dim, position, keys, spare):
    """As `attention.make_append` has it."""
    steps = keys + 4 * position
    store(steps + _key_steps(head_dim), quantize_row_i3(key, head_dim, MIN_CACHED, spare))
    words = (head_dim + _TOGETHER - 1) // _TOGETHER
    block = keys + (position // BLOCK * words * BLOCK * _WORD + position % BLOCK)
    for i in range(words):
        _store_word(block + i * BLOCK * _WORD, BLOCK, _word(spare + i * _TOGETHER))
    store(steps + _value_steps(head_dim), quantize_row_i3(value, head_dim, MIN_CACHED, spare))
    for i in range(words):
        chunk = i * _TOGETHER // CHUNK * POSITIONS + position
        target = keys + _values(head_dim) + (chunk * _CHUNK_BYTES + i * _WORD % _CHUNK_BYTES)
        _store_word(target, 1, _word(spare + i * _TOGETHER))


attend_i3 = make_attend(INT3)
