"""Blocks of neighbouring two-bit codes, as files have them, as the panels of two_bit.

Layout: of 256 weights of a row, byte m of a panel's row has the weights m, m + 64, m + 128 and
m + 192; in the file's blocks, byte a of each quarter has four neighbours. Trick: the word of the
bytes a of the four quarters has the same 16 codes as the word of the bytes 4a to 4a + 3 of a
panel's row, as a 4 x 4 matrix and its transpose: two swaps. Bound: memory.
"""

import numpy as np

from ternops.encodings.panels import LINE, ROWS
from ternops.simd import TeamJob, inlined, load, pointer, record_at, record_type, store
from ternops.team import share

#: Of `rows` rows of `blocks` blocks of 256 weights, row_stride bytes each. size: bytes of codes
#: that lie together, 16 or 32, behind two bytes of a scale; stride: from one such to the next.
#: scales: gets these scales, row by row. flaws: an int64 a thread, which gets 1 + the last row with
#: the code 3, if that has any.
REGROUP = np.dtype(
    [(name, np.intp) for name in (
        "codes", "row_stride", "size", "stride", "rows", "blocks", "out", "scales", "flaws",
    )]
)  # fmt: skip
_Regroup = record_type(REGROUP)


@inlined
def _swapped(word, shift, mask):
    """Two fields of a word exchanged, at each bit of the mask and `shift` bits above it."""
    change = (word >> shift ^ word) & mask
    return word ^ change ^ change << shift


@inlined
def _byte(place):
    return np.int64(load(np.uint8, place))


@inlined
def _regroup(record, team, thread, threads):
    """Panels of rows are shared out."""
    p = record_at(_Regroup, record)
    first, last = share(p.rows // ROWS, 1, thread, threads)
    apart = np.int64(16) if p.size == 32 else p.stride  # of the first two quarters
    pair = p.stride if p.size == 32 else 2 * p.stride  # and of the other two
    flaw = np.int64(0)
    for panel in range(first, last):
        for block in range(p.blocks):
            for row in range(panel * ROWS, panel * ROWS + ROWS):
                codes = pointer(p.codes) + (row * p.row_stride + 2 * block * pair)
                out = pointer(p.out) + ((panel * p.blocks + block) * ROWS * LINE + row % ROWS * 4)
                count = 8 if p.size == 16 else 4
                scales = pointer(p.scales) + (row * p.blocks + block) * count
                for i in range(count // 2):
                    store(scales + 2 * i, load(np.uint16, codes + (i * p.stride - 2)))
                bad = np.int64(0)
                for a in range(16):
                    one, other = codes + a, codes + (a + pair)
                    word = _byte(one) | _byte(one + apart) << 8
                    word |= _byte(other) << 16 | _byte(other + apart) << 24
                    bad |= word & word >> 1
                    word = _swapped(_swapped(word, 6, 0x00CC00CC), 12, 0x0000F0F0)
                    store(out + a * LINE, np.uint32(word))
                if bad & 0x55555555 != 0:
                    flaw = np.int64(row + 1)
    store(pointer(p.flaws) + 8 * thread, flaw)


regroup = TeamJob(_regroup, "regroup")
