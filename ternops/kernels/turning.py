"""Scales of groups of columns, as kernels read them: a panel's side by side.

Layout: ternops.encodings.panels. Trick: floats are equal as the integers of their bits are, and
finite where some bit of infinity's is 0. Bound: memory.
"""

import numpy as np

from ternops.encodings.panels import ROWS
from ternops.simd import TeamJob, inlined, load, pointer, record_at, record_type, store
from ternops.team import share

#: Scales (rows, blocks) of `size` bytes, of which `count` neighbours become one (panels, groups,
#: 16): what they are apart from those that are 0, or `unused` if all are. flaws: an int64 a thread:
#: 1 where they differ, 2 where one is not finite, 4 where one is 0. infinity: its bits.
TURN = np.dtype(
    [(name, np.intp) for name in (
        "scales", "rows", "blocks", "count", "size", "unused", "infinity", "out", "flaws",
    )]
)  # fmt: skip
_Turn = record_type(TURN)


@inlined
def _one_of(p, row, group, kind):
    """The scale of a group."""
    source = pointer(p.scales) + (row * p.blocks + group * p.count) * p.size
    value, flaw = np.int64(0), np.int64(0)
    for i in range(p.count):
        bits = np.int64(load(kind, source + i * p.size))
        if bits == 0:
            flaw |= 4
        else:
            if value != 0 and bits != value:
                flaw |= 1
            if bits & p.infinity == p.infinity:
                flaw |= 2
            value = bits
    return (value if value != 0 else p.unused), flaw


@inlined
def _turn_panel(p, panel, kind):
    flaw = np.int64(0)
    groups = p.blocks // p.count
    out = pointer(p.out) + panel * groups * ROWS * p.size
    for group in range(groups):
        for lane in range(ROWS):
            row = panel * ROWS + lane
            value = np.int64(0)
            if row < p.rows:
                value, found = _one_of(p, row, group, kind)
                flaw |= found
            store(out + (group * ROWS + lane) * p.size, kind(value))
    return flaw


@inlined
def _turn(record, team, thread, threads):
    """Panels are shared out."""
    p = record_at(_Turn, record)
    flaw = np.int64(0)
    first, last = share((p.rows + ROWS - 1) // ROWS, 1, thread, threads)
    for panel in range(first, last):
        if p.size == 2:
            flaw |= _turn_panel(p, panel, np.uint16)
        else:
            flaw |= _turn_panel(p, panel, np.uint32)
    store(pointer(p.flaws) + 8 * thread, flaw)


turn = TeamJob(_turn, "turn")
