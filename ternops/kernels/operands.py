"""What the kernels are handed: one record of addresses and counts, in memory.

A kernel is called with (operands, first, last, thread): the record's address, and what to do.
`prepare` kernels turn tokens [first, last) into the form that `multiply` kernels read, which
compute rows [first, last) of the product for all tokens. `ternops.kernels.call` makes records.
"""

import numpy as np

from ternops.isa import f32_lanes
from ternops.simd import (
    convert,
    full,
    inlined,
    load,
    load_first,
    pointer,
    record_type,
    store_first,
)

#: What a matrix, the number of tokens and their type tell, and what changes from call to call.
FIXED = (
    "prepare", "multiply", "row_step", "weights", "stride", "rows", "columns", "fields", "bias",
    "scales", "scale_step", "is_float", "tokens", "token_block", "placed_stride", "out_stride",
    "scratch_stride", "group_bits", "is_blocked", "levels", "shift",
)  # fmt: skip
CHANGING = ("x", "out", "placed", "offsets", "steps", "scratch", "listed")
#: One product of W (rows, columns) and the tokens x (tokens, columns): out (tokens, rows).
#: prepare, multiply: addresses of its kernels; threads share rows in multiples of row_step.
#: weights: packed, in rows of `stride` bytes; fields: weights of a byte (both of block encodings
#: only); bias, shift, levels: what codes stand for (`ternops.kernels.levels`). x: contiguous
#: float32 (is_float 1) or int8 tokens, of which a panel of the GEMM is used for token_block before
#: the next panel. placed: memory for the prepared tokens, placed_stride bytes each; offsets: for
#: the int32 that is to be subtracted from the sums of each; steps: for the float32 step of each.
#: scales: float32, scale_step bytes from row to row (0: one for all); a negative scale_step stores
#: int32 sums, else float32 (sum * scale) * step. With a scale a group of 2**group_bits columns
#: (`grouped`; WHOLE: of panels whose columns all share one) each token has an offset and a step a
#: group, by tiles (`grouped_tiles`) no offset, and steps are (tokens / 16, groups, 16); scales are
#: (panels, groups, 16), of scale_step bytes each; is_blocked: each group of a float token has a
#: step of its own. out_stride counts elements.
#: scratch: scratch_stride bytes a thread. listed: int32 numbers of the rows or columns that are
#: computed, for the kernels that take some alone (`ternops.kernels.sparse`). floor: the least
#: max|x| of a float token. Addresses and counts are intp.
OPERANDS = np.dtype([("floor", np.float64)] + [(name, np.intp) for name in (*FIXED, *CHANGING)])
Operands = record_type(OPERANDS)
#: group_bits of panels whose columns all share a scale, or have none: there are 0 groups.
WHOLE = 62


@inlined
def _row_scales(p, row, count):
    """The scales of `count` rows from `row` on, a lane each."""
    scales = pointer(p.scales)
    if p.scale_step == 0:
        return full(f32_lanes, load(np.float32, scales))
    return load_first(f32_lanes, scales + p.scale_step * row, count)


@inlined
def finish(p, total, row, token, count):
    """Scale and write the sums of `count` rows from `row` on, the lanes of an i32, for a token."""
    offset = load(np.int32, pointer(p.offsets) + 4 * token)
    write_scaled(p, (total << p.shift) - offset, row, token, count)


@inlined
def write_scaled(p, total, row, token, count):
    """The same of sums of levels, which nothing is to be subtracted from."""
    place = pointer(p.out) + 4 * (token * p.out_stride + row)
    if p.scale_step < 0:
        store_first(place, total, count)
        return
    step = load(np.float32, pointer(p.steps) + 4 * token)
    store_first(place, convert(f32_lanes, total) * _row_scales(p, row, count) * step, count)
