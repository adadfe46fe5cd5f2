"""The cache of keys and values, and attention over it, one key/value head at a time.

Layout: pages of 64 positions, found by a table; of a head keys in blocks of 16 positions, a vector
for each dimension, then values in chunks of 32 dimensions, position after position, then steps.
Trick: a vector holds 16 positions' scores, so that no sum runs across lanes, and a key serves all
query heads, and several tokens, while it is in the nearest cache.
Bound: cache latency at short contexts, later memory, up to 8 bytes a position and dimension.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ternops.isa import WIDE, load_fp16, to_half
from ternops.kernels.elementwise import quantize_row, read, softmax, write
from ternops.simd import (
    f32,
    fma,
    full,
    i8x16,
    i32x16,
    inlined,
    kernel,
    load,
    load_i8,
    pointer,
    prefetch,
    registers,
    store,
    u16,
)

TURN = 4  #: blocks of keys in one loop, where there is one query
POSITIONS = 64  #: of a page
BLOCK = 16  #: positions whose keys lie together
CHUNK = 32  #: dimensions of a value that lie together
QUERIES = 4  #: of a tile: they share each key that is loaded
#: An int8 key or value of zeros has this absmax, as float16's smallest has about.
MIN_CACHED = 1e-8
_LANES = BLOCK
# Of the next page, where the hardware prefetcher knows no pattern yet.
_AHEAD_BYTES = 1024
#: Bytes of the keys of one head that are prefetched by software; beyond them the hardware
#: prefetcher has recognised the pattern.
_PREFETCH_BYTES = 8192
# Blocks of keys at a time, with QUERIES queries and with one: 8 sums in 32 registers, 4 in 16.
_BLOCKS = 2 if WIDE.bytes == 64 else 1


class Elements(NamedTuple):
    """How a cache holds the elements of keys and values.

    bits: of one. together: how many dimensions of a key are held together. has_steps: whether each
    key and value has a factor of its own. scores, weigh: as `make_scores` and `make_weigh`, for so
    many queries times so many blocks of keys, and for so many queries.
    """

    bits: int
    together: int
    has_steps: bool
    scores: Callable[[int, int], Any]
    weigh: Callable[[int], Any]

    def key_bytes(self, head_dim: int) -> int:
        """Of the key of one head and position."""
        return -(-head_dim // self.together) * self.together * self.bits // 8

    @property
    def chunk_bytes(self) -> int:
        """Of CHUNK dimensions of the value of one position."""
        return CHUNK * self.bits // 8

    def head_bytes(self, head_dim: int) -> int:
        """Of the keys, the values and the steps of one head in a page."""
        values = -(-head_dim // CHUNK) * self.chunk_bytes
        return POSITIONS * (self.key_bytes(head_dim) + values + 8 * self.has_steps)


class Parts(NamedTuple):
    """For kernels, functions of head_dim: `Elements.key_bytes` and `Elements.head_bytes`, and where
    in a head's part of a page the values begin, and the steps of keys and of values."""

    key_bytes: Any
    head_bytes: Any
    values: Any
    key_steps: Any
    value_steps: Any


def make_parts(elements: Elements) -> Parts:
    """Those of `elements`."""
    together, unit, chunk_bytes = elements.together, elements.key_bytes(1), elements.chunk_bytes
    step = 4 * POSITIONS if elements.has_steps else 0

    @inlined
    def key_bytes(head_dim):
        return (head_dim + together - 1) // together * unit

    @inlined
    def values(head_dim):
        return POSITIONS * key_bytes(head_dim)

    @inlined
    def key_steps(head_dim):
        return values(head_dim) + (head_dim + CHUNK - 1) // CHUNK * POSITIONS * chunk_bytes

    @inlined
    def value_steps(head_dim):
        return key_steps(head_dim) + step

    @inlined
    def head_bytes(head_dim):
        return value_steps(head_dim) + step

    return Parts(key_bytes, head_bytes, values, key_steps, value_steps)


@inlined
def page_of(pages, position):
    """Where the page of a position begins. pages: the addresses of a sequence's pages, int64."""
    return pointer(load(np.int64, pages + 8 * (position // POSITIONS)))


def whole_elements(load_cached: Any, size: int, has_steps: bool) -> Elements:
    """Elements of `size` bytes, of which load_cached makes 16 float32."""
    return Elements(
        8 * size, 1, has_steps,
        lambda rows, blocks: make_scores(load_cached, size, rows, blocks),
        lambda rows: make_weigh(load_cached, size, rows),
    )  # fmt: skip


@kernel
def rotate(x, cosine, sine, rotated, head_dim, target):
    """target = rotary embedding of one head (RoFormer, arXiv 2104.09864), halves apart.

    x, target: float32 (head_dim,), of which the first `rotated` are rotated; cosine, sine: float32
    (rotated / 2,) of this position.
    """
    for i in range(rotated, head_dim, _LANES):
        write(target, i, head_dim, read(x, i, head_dim))
    half = rotated // 2
    upper, target_upper = x + 4 * half, target + 4 * half
    for i in range(0, half, _LANES):
        a, b = read(x, i, half), read(upper, i, half)
        c, s = read(cosine, i, half), read(sine, i, half)
        write(target, i, half, a * c - b * s)
        write(target_upper, i, half, b * c + a * s)


@inlined
def _keep_f32(x, count, target, step):
    for i in range(0, count, _LANES):
        store(target + 4 * i, read(x, i, count))


@inlined
def _load_f32(place):
    return load(f32, place)


@inlined
def _narrow_f16(x, count, target, step):
    for i in range(0, count, _LANES):
        store(target + 2 * i, to_half(read(x, i, count)))


@inlined
def _narrow_i8(x, count, target, step):
    size, _ = quantize_row(x, count, MIN_CACHED, target)
    store(step, size)


def make_append(elements, integer, vector, narrow):
    """A function that writes one position of one head to the cache.

    elements: of the cache. integer, vector: NumPy's integer of an element's size, and 16 of them.
    narrow: writes float32 as elements, and an int8's step.
    """
    size, parts = elements.bits // 8, make_parts(elements)
    values_at, key_steps, value_steps = parts.values, parts.key_steps, parts.value_steps

    @inlined
    def append(key, value, head_dim, position, keys, spare):
        """key, value: float32 (head_dim,); position: in the page; keys: where those of the head
        begin there; spare: room for head_dim and 32 floats."""
        narrow(key, head_dim, spare, keys + key_steps(head_dim) + 4 * position)
        block = keys + (position // _LANES * head_dim * _LANES + position % _LANES) * size
        for i in range(head_dim):
            store(block + i * _LANES * size, load(integer, spare + i * size))
        narrow(value, head_dim, spare, keys + value_steps(head_dim) + 4 * position)
        values = keys + values_at(head_dim)
        for i in range(0, head_dim, CHUNK):
            chunk = values + (i * POSITIONS + position * CHUNK) * size
            for j in range(0, min(CHUNK, head_dim - i), _LANES):
                store(chunk + j * size, load(vector, spare + (i + j) * size))

    return append


def make_scores(load_cached, size, rows, blocks):
    """A function for some queries times some blocks of keys, before any scale."""
    count = rows * blocks

    @inlined
    def scores(queries, keys, head_dim, out, stride):
        sums = registers(f32, count)
        for i in range(count):
            sums[i] = full(f32, 0.0)
        for d in range(head_dim):
            for b in range(blocks):
                key = load_cached(keys + (b * head_dim + d) * _LANES * size)
                for r in range(rows):
                    query = full(f32, load(np.float32, queries + 4 * (r * head_dim + d)))
                    sums[r * blocks + b] = fma(key, query, sums[r * blocks + b])
        for r in range(rows):
            for b in range(blocks):
                store(out + 4 * (r * stride + b * _LANES), sums[r * blocks + b])

    return scores


def make_weigh(load_cached, size, rows):
    """A function that adds to the sums one chunk of values, weighted for some queries."""

    @inlined
    def weigh(weights, stride, values, positions, sums):
        for position in range(positions):
            value = values + position * CHUNK * size
            low, high = load_cached(value), load_cached(value + _LANES * size)
            for r in range(rows):
                weight = full(f32, load(np.float32, weights + 4 * (r * stride + position)))
                sums[2 * r] = fma(weight, low, sums[2 * r])
                sums[2 * r + 1] = fma(weight, high, sums[2 * r + 1])

    return weigh


@inlined
def _prefetch_next(pages, start, positions, at, size):
    """Prefetch how `size` bytes at `at` begin in the page behind that of `start`, if it is read."""
    if start + POSITIONS < positions:
        begin = page_of(pages, start + POSITIONS) + at
        for i in range(0, min(size, _AHEAD_BYTES), 64):
            prefetch(begin + i)


@inlined
def _steps(pages, at, position):
    """16 of the steps that lie at `at` in each page."""
    return load(f32, page_of(pages, position) + at + 4 * (position % POSITIONS))


@inlined
def _tiles(rows):
    """The rows in tiles of QUERIES, and where the last tile begins.

    If two or three rows are left over, the last tile computes some a second time, with the same
    result.
    """
    tiled = rows // QUERIES * QUERIES
    if tiled > 0 and rows - tiled > 1:
        tiled = rows
    return tiled, tiled - QUERIES


def make_attend(elements):
    """Attention of some queries over one key/value head of these `Elements`."""
    has_steps, chunk_bytes = elements.has_steps, elements.chunk_bytes
    key_bytes_of, _, values_at, key_steps_at, value_steps_at = make_parts(elements)
    scores_many = elements.scores(QUERIES, _BLOCKS)
    scores_one, scores_last = (elements.scores(1, blocks) for blocks in (TURN, 1))
    weigh_many, weigh_one = (elements.weigh(rows) for rows in (QUERIES, 1))
    most_sums = 2 * QUERIES

    @inlined
    def all_scores(queries, rows, pages, head, head_dim, positions, scores, stride):
        tiled, last = _tiles(rows)
        key_bytes = key_bytes_of(head_dim)
        for start in range(0, positions, POSITIONS):
            # The keys of one page stay in the nearest cache for all queries.
            at, end = page_of(pages, start) + head, min(POSITIONS, positions - start)
            _prefetch_next(pages, start, positions, head, POSITIONS * key_bytes)
            for tile in range(0, tiled, QUERIES):
                row = min(tile, last)
                query, out = queries + 4 * row * head_dim, scores + 4 * (row * stride + start)
                for block in range(0, end, _BLOCKS * _LANES):
                    near = at + block * key_bytes
                    scores_many(query, near, head_dim, out + 4 * block, stride)
            for row in range(tiled, rows):
                query, out = queries + 4 * row * head_dim, scores + 4 * (row * stride + start)
                if end > POSITIONS - _LANES:
                    scores_one(query, at, head_dim, out, stride)
                else:  # to read no more than there is
                    for block in range(0, end, _LANES):
                        near = at + block * key_bytes
                        scores_last(query, near, head_dim, out + 4 * block, stride)

    @inlined
    def weights_of(scores, unseen, positions, scale, pages, key_steps, value_steps):
        """Make a row of scores the weights of its values; those of the first are 0."""
        for i in range(0, positions, _LANES):
            score = load(f32, scores + 4 * i) * scale
            if has_steps:
                score = score * _steps(pages, key_steps, i)
            store(scores + 4 * i, score)
        for i in range(unseen):
            store(scores + 4 * i, np.float32(-np.inf))
        softmax(scores, positions)
        if has_steps:
            for i in range(0, positions, _LANES):
                weight = load(f32, scores + 4 * i) * _steps(pages, value_steps, i)
                store(scores + 4 * i, weight)

    @inlined
    def weighted(weigh, count, scores, stride, pages, chunk, positions, sums):
        """sums = one chunk of the values of all pages, weighted."""
        for i in range(count):
            sums[i] = full(f32, 0.0)
        for start in range(0, positions, POSITIONS):
            values, end = page_of(pages, start) + chunk, min(POSITIONS, positions - start)
            _prefetch_next(pages, start, positions, chunk, POSITIONS * chunk_bytes)
            weigh(scores + 4 * start, stride, values, end, sums)

    @inlined
    def attend(
        queries, group, first, tokens, window, scale, pages, head, head_dim, scores, stride, out,
        out_stride,
    ):  # fmt: skip
        """Tokens at positions first, first + 1, ..., each with `group` query heads.

        window: how many positions a token sees, its own included. scale: float32, of scores.
        pages: as `page_of` has them; head: where in each of them the head's keys begin.
        queries: float32 (tokens * group, head_dim), rotated; scores: room for as many rows of
        `stride` >= positions + POSITIONS floats; out: float32, the heads of a token one after
        another, out_stride floats from token to token. As `scores`, `softmax` and `weighted_sum` of
        `reference`.
        """
        rows, positions = tokens * group, first + tokens
        all_scores(queries, rows, pages, head, head_dim, positions, scores, stride)
        key_steps, value_steps = head + key_steps_at(head_dim), head + value_steps_at(head_dim)
        for row in range(rows):
            seen, at = first + row // group + 1, scores + 4 * row * stride
            weights_of(at, max(0, seen - window), seen, scale, pages, key_steps, value_steps)
            # Positions that later tokens of the tile see, and this one does not.
            for i in range(seen, positions, _LANES):
                store(at + 4 * i, full(f32, 0.0))
        sums = registers(f32, most_sums)
        tiled, last = _tiles(rows)
        for d in range(0, head_dim, CHUNK):
            chunk = head + values_at(head_dim) + d // CHUNK * POSITIONS * chunk_bytes
            for tile in range(0, tiled, QUERIES):
                row = min(tile, last)
                at = scores + 4 * row * stride
                weighted(weigh_many, most_sums, at, stride, pages, chunk, positions, sums)
                for r in range(QUERIES):
                    at = (row + r) // group * out_stride + (row + r) % group * head_dim
                    write_chunk(out + 4 * at, d, head_dim, sums[2 * r], sums[2 * r + 1])
            for row in range(tiled, rows):
                at = scores + 4 * row * stride
                weighted(weigh_one, 2, at, stride, pages, chunk, positions, sums)
                at = row // group * out_stride + row % group * head_dim
                write_chunk(out + 4 * at, d, head_dim, sums[0], sums[1])

    return attend


@inlined
def write_chunk(out, d, head_dim, low, high):
    """out[d : d + CHUNK] = low and high, as far as head_dim goes."""
    write(out, d, head_dim, low)
    if d + _LANES < head_dim:
        write(out, d + _LANES, head_dim, high)


@inlined
def prefetch_page(keys, key_bytes, chunk_bytes, chunks, positions):
    """Prefetch the keys of one head in a page, and its values, of so many chunks."""
    read = (positions + _LANES - 1) // _LANES * _LANES * key_bytes
    for i in range(0, min(read, _PREFETCH_BYTES), 64):
        prefetch(keys + i)
    for d in range(chunks):
        chunk = keys + POSITIONS * (key_bytes + d * chunk_bytes)
        for i in range(0, positions * chunk_bytes, 64):
            prefetch(chunk + i)


FP32 = whole_elements(_load_f32, 4, False)
FP16, INT8 = whole_elements(load_fp16, 2, False), whole_elements(load_i8, 1, True)
append_fp32 = make_append(FP32, np.int32, i32x16, _keep_f32)
append_fp16 = make_append(FP16, np.int16, u16, _narrow_f16)
append_i8 = make_append(INT8, np.int8, i8x16, _narrow_i8)
attend_fp32, attend_fp16, attend_i8 = (make_attend(each) for each in (FP32, FP16, INT8))
