"""The output head screened: an int8 copy is scanned, and only rows that can still win are computed.

Layout: int8 rows with a scale and an error bound each, beside the float16 or bfloat16 rows. Trick:
|w.x - s c.x| <= |w - s c| |x| (Cauchy and Schwarz), so that a row is out once its upper bound falls
below the lower bounds of as many others as are wanted. Bound: memory, 8 bits a weight.
"""

import numpy as np

from ternops.isa import WIDE_FLOATS, load_fp16
from ternops.kernels.fp16 import KINDS, make_dot
from ternops.kernels.int8 import LARGEST
from ternops.kernels.reference import ROUNDER
from ternops.simd import (
    TeamJob,
    bitcast,
    convert,
    f32,
    fma,
    full,
    i8x16,
    i32x16,
    inlined,
    load,
    load_bf16,
    maximum_i32,
    pointer,
    record_at,
    record_type,
    reduce_max,
    registers,
    select_greater,
    store,
    tree_max,
    tree_sum,
)
from ternops.team import share

ROWS = 64  #: rows of which one peak is kept; threads share rows in multiples of it
_LANES = 16


def peak_floats(padded):
    """Floats for a peak of every ROWS of so many rows, in whole vectors."""
    return -(-padded // ROWS // _LANES) * _LANES


_ROUNDER_BITS = int(ROUNDER.view(np.int32))
_MAGNITUDE_BITS = 0x7FFFFFFF
_MIN_NORMAL = np.float32(2.0**-126)
# Times the least `length`, 2**-63 for each root of a column, it exceeds what a sum's terms lose.
_VANISHING = np.float32(2.0**-80)

#: What `quantize_head` is told: rows of `stride` bytes become int8 rows of code_stride, with a
#: float32 scale and error bound each.
QUANTIZE = np.dtype(
    [(name, np.intp) for name in (
        "is_bf16", "rows", "weights", "stride", "codes", "code_stride", "scales", "bounds",
    )]
)  # fmt: skip
_Quantize = record_type(QUANTIZE)


@inlined
def _step_error(columns):
    """A bound on |x - x'| / |x|, where `int8` multiplies x' for x: half of a step in each column,
    which is max|x| / LARGEST, and some rounding."""
    return np.float32(0.51 / LARGEST) * np.sqrt(np.float32(columns))


@inlined
def _rounding(columns):
    """A bound on the relative rounding error of a sum of `columns` products as `reference.dot`
    computes it, with room for a dozen further operations: each is off by at most 2**-24."""
    return np.float32((columns // _LANES + 32) * 2.0**-23)


def make_quantize(load_weights):
    """A function that makes int8 of one row."""

    @inlined
    def quantize(source, columns, target, scale, bound):
        """scale = max|w| / 127; bound: of |fl(w.x) - fl(scale * (c.x'))| / |x| for any x."""
        largest = full(i32x16, 0)
        for i in range(0, columns, _LANES):
            magnitude = bitcast(i32x16, load_weights(source + 2 * i)) & _MAGNITUDE_BITS
            largest = maximum_i32(largest, magnitude)
        # Compared as integers, so that infinity and NaN, which no bound holds for, come out on top.
        absmax = tree_max(bitcast(f32, full(i32x16, reduce_max(largest))))
        absmax = max(absmax, np.float32(1e-30))
        step = absmax / np.float32(127)
        factor = full(f32, np.float32(127) / absmax)
        errors, squares = full(f32, 0.0), full(f32, 0.0)
        for i in range(0, columns, _LANES):
            w = load_weights(source + 2 * i)
            rounded = w * factor + ROUNDER
            store(target + i, convert(i8x16, bitcast(i32x16, rounded) - _ROUNDER_BITS))
            error = fma(rounded - ROUNDER, full(f32, -step), w)
            errors, squares = fma(error, error, errors), fma(w, w, squares)
        error, norm = np.sqrt(tree_sum(errors)), np.sqrt(tree_sum(squares))
        # The second part covers x' and the rounding of both products: scale * c is at most as long
        # as norm + error; the tiny last one what vanishes below float32's least numbers.
        slack = _rounding(columns)
        store(scale, step)
        total = error + (_step_error(columns) + np.float32(4) * slack) * (norm + error)
        store(bound, total * (np.float32(1) + slack) + _VANISHING)

    return quantize


_quantize_f16, _quantize_bf16 = make_quantize(load_fp16), make_quantize(load_bf16)


@TeamJob
def quantize_head(record, team, thread, threads):
    """Every row of a QUANTIZE record as int8."""
    p = record_at(_Quantize, record)
    first, last = share(p.rows, 1, thread, threads)
    for row in range(first, last):
        source = pointer(p.weights) + row * p.stride
        target = pointer(p.codes) + row * p.code_stride
        scale, bound = pointer(p.scales) + 4 * row, pointer(p.bounds) + 4 * row
        if p.is_bf16:
            _quantize_bf16(source, p.stride // 2, target, scale, bound)
        else:
            _quantize_f16(source, p.stride // 2, target, scale, bound)


@inlined
def length(x, columns):
    """An upper bound of |x|, for float32 (columns,) padded with zeros to whole vectors."""
    squares = full(f32, 0.0)
    for i in range(0, columns, _LANES):
        chunk = load(f32, x + 4 * i)
        squares = fma(chunk, chunk, squares)
    # Of each square so much may have vanished.
    total = tree_sum(squares) + np.float32(columns) * _MIN_NORMAL
    return np.sqrt(total) * (np.float32(1) + _rounding(columns))


@inlined
def find_peaks(scores, bounds, norm, first, last, peaks):
    """The largest lower bound of every ROWS rows of [first, last)."""
    for start in range(first, last, ROWS):
        largest = full(f32, -np.inf)
        for row in range(start, min(start + ROWS, last), _LANES):
            lower = fma(load(f32, bounds + 4 * row), full(f32, -norm), load(f32, scores + 4 * row))
            largest = select_greater(lower, largest, lower, largest)
        store(peaks + 4 * (start // ROWS), tree_max(largest))


@inlined
def threshold(peaks, count, wanted):
    """At most the wanted-th largest of `count` peaks: so many rows reach it for certain."""
    least = np.float32(np.inf)
    for _ in range(wanted):
        below = full(f32, -np.inf)
        for i in range(0, count, _LANES):
            peak = load(f32, peaks + 4 * i)
            peak = select_greater(full(f32, least), peak, peak, full(f32, -np.inf))
            below = select_greater(peak, below, peak, below)
        least = tree_max(below)
    return least


def make_rescore(kind):
    """A function that computes what can still win and rules out the rest."""
    dot = make_dot(WIDE_FLOATS, kind, 1, 1)

    @inlined
    def rescore(scores, bounds, norm, least, first, last, weights, stride, x):
        """scores[first:last] = rows times x where an upper bound reaches `least`, else -inf.

        Gives the number of rows that were computed.
        """
        sums = registers(f32, 1)
        computed = 0
        for start in range(first, last, _LANES):
            score = load(f32, scores + 4 * start)
            upper = fma(load(f32, bounds + 4 * start), full(f32, norm), score)
            # A NaN, on either side, is no reason to rule a row out.
            kept = select_greater(full(f32, least), upper, full(f32, -np.inf), full(f32, 0.0))
            store(scores + 4 * start, kept)
            if tree_max(kept) == np.float32(0):
                for row in range(start, min(start + _LANES, last)):
                    if load(np.float32, scores + 4 * row) == np.float32(0):
                        dot(weights + row * stride, stride, 1, x, 0, sums)
                        store(scores + 4 * row, tree_sum(sums[0]))
                        computed += 1
        return computed

    return rescore


_rescore_f16, _rescore_bf16 = (make_rescore(KINDS[name]) for name in ("fp16", "bf16"))


@inlined
def find_all_peaks(p, placed, placed_stride, first, last):
    """`find_peaks` of each output. p: a record with the fields that `rescore_all` reads, too."""
    columns = p.exact_stride // 2
    for output in range(p.outputs):
        norm = length(pointer(placed) + output * placed_stride, columns)
        scores = pointer(p.logits) + 4 * output * p.logits_stride
        peaks = pointer(p.peaks) + 4 * output * p.peak_count
        find_peaks(scores, pointer(p.bounds), norm, first, last, peaks)


@inlined
def rescore_all(p, placed, placed_stride, near, first, last):
    """Make exact what may be among the `exact_top` largest of each output, or less than that by
    the part `near`, the rest -inf; gives the number of rows that were computed.

    To be called behind a barrier after `find_all_peaks`. placed: the prepared outputs, which begin
    with their float32.
    """
    columns = p.exact_stride // 2
    bounds, exact = pointer(p.bounds), pointer(p.exact)
    computed = 0
    for output in range(p.outputs):
        x = pointer(placed) + output * placed_stride
        norm = length(x, columns)
        scores = pointer(p.logits) + 4 * output * p.logits_stride
        least = threshold(pointer(p.peaks) + 4 * output * p.peak_count, p.peak_count, p.exact_top)
        # NaN, of an infinite one, rules nothing out.
        least -= near * (abs(least) + _VANISHING)
        if p.exact_is_bf16:
            computed += _rescore_bf16(
                scores, bounds, norm, least, first, last, exact, p.exact_stride, x
            )
        else:
            computed += _rescore_f16(
                scores, bounds, norm, least, first, last, exact, p.exact_stride, x
            )
    return computed
