"""Packing by kernels: values, or codes as files have them, and the scales of groups of columns.

What `ternops.encodings` does in NumPy, byte for byte, some twenty times as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.encodings import PANELS
from ternops.encodings.blocks import Blocks
from ternops.encodings.common import SLACK, spans
from ternops.encodings.encoding import Encoding, are_even, code_of
from ternops.encodings.panels import ROWS, Panels, rows_at_once
from ternops.kernels.codes import DIGITS, E2M1, FIELDS, INT8, NIBBLES, PAIRS, SIGNS, TRITS
from ternops.kernels.levels import levels_of
from ternops.kernels.packing import PACK, SCRATCH_BYTES, pack
from ternops.kernels.tuning import useful_threads
from ternops.kernels.turning import TURN, turn
from ternops.kernels.unpacking import SCRATCH_BYTES as UNPACK_SCRATCH_BYTES
from ternops.kernels.unpacking import UNPACK, unpack
from ternops.memory import aligned_empty
from ternops.simd import TeamJob
from ternops.team import TEAM
from ternops.threads import get_num_threads

__all__ = [
    "DIGITS", "E2M1", "FIELDS", "INT8", "NIBBLES", "PAIRS", "SIGNS", "Codes", "pack_codes",
    "pack_trits", "turn_scales",
]  # fmt: skip

Array = npt.NDArray[Any]


class Codes(NamedTuple):
    """How the bytes of a row hold codes: -1, 0 and 1 are 0, 1 and 2; of signs 0 and 1; others are
    numbers of levels.

    form: see `ternops.kernels.codes`. weights, size: of a block, the latter in bytes. first:
    bytes before a row's blocks. codes, scale: where in a block codes begin, and a float16 (None:
    there is none). apart: of FIELDS, NIBBLES and E2M1; turned: of FIELDS; stages: of DIGITS,
    (bytes, digits of each) three times
    """

    form: int
    weights: int = 1
    size: int = 1
    first: int = 0
    codes: int = 0
    scale: int | None = None
    apart: int = 16
    turned: int = 0
    stages: tuple[tuple[int, int], ...] = ((0, 0), (0, 0), (0, 0))


_TRITS = Codes(TRITS)


def pack_trits(
    layout: Encoding,
    values: npt.NDArray[np.int8],
    packed: Array | None = None,
    levels: Sequence[int] = (),
) -> Array:
    """`layout.pack`: int8 (rows, columns) of the levels, by default its values, as uint8
    (nbytes + SLACK,).

    packed: an array for the result.
    """
    rows, columns = values.shape
    if packed is None:
        packed = aligned_empty(layout.nbytes(rows, columns) + SLACK, np.uint8)
    if not isinstance(layout, Blocks | Panels):
        packed[:] = layout.pack(values)
        return packed
    packed[-SLACK:] = 0
    if values.strides[1:] == (1,):
        _run(layout, _TRITS, values.view(np.uint8), columns, packed, levels=levels)
        return packed
    for start, stop in spans(0, rows, rows_at_once(columns)):
        part = np.ascontiguousarray(values[start:stop]).view(np.uint8)
        place = packed[layout.nbytes(start, columns) :]
        _run(layout, _TRITS, part, columns, place, levels=levels)
    return packed


def pack_codes(
    layout: Blocks | Panels,
    codes: Codes,
    data: npt.NDArray[np.uint8],
    columns: int,
    packed: Array,
    used: npt.NDArray[np.bool_],
    scales: npt.NDArray[np.float16] | None = None,
    order: npt.NDArray[np.intp] | None = None,
    has_dead: bool = False,
) -> bool:
    """Fill `packed`, as `layout.pack` would, from the bytes of rows; False if a code is none, or
    the scale of what is not 0 is not finite, or, of trits, not positive.

    data: uint8 (rows, bytes). used, scales: (rows, blocks), get whether a block has anything but
    zeros, and its scale, 0 where it has not. order: of the rows that are packed.
    has_dead: blocks whose scale is 0, or whose `used` is False, are zeros whatever their codes are.
    """
    packed[-SLACK:] = 0
    return _run(layout, codes, data, columns, packed, used, scales, order, has_dead)


def repack(
    layout: Encoding,
    packed: Array,
    rows: int,
    columns: int,
    target: Encoding,
    levels: Sequence[int] = (),
    others: Sequence[int] = (),
) -> npt.NDArray[np.uint8]:
    """`target.pack` of what `layout` unpacks; some rows at a time, between block encodings.

    levels, others: those of `layout` and `target`, by default their values.
    """
    if not isinstance(layout, Blocks | Panels) or not isinstance(target, Blocks | Panels):
        values = unpack_rows(layout, packed, rows, columns, levels=levels)
        return pack_trits(target, values, levels=others)
    result = aligned_empty(target.nbytes(rows, columns) + SLACK, np.uint8)
    for start, stop in spans(0, rows, rows_at_once(columns)):
        values = unpack_rows(layout, packed, rows, columns, start, stop, levels)
        place = result[target.nbytes(start, columns) :]
        pack_trits(target, values, place, others)
    result[-SLACK:] = 0
    return result


def unpack_rows(
    layout: Encoding,
    packed: Array,
    rows: int,
    columns: int,
    first: int = 0,
    last: int | None = None,
    levels: Sequence[int] = (),
) -> npt.NDArray[np.int8]:
    """`layout.unpack`: rows [first, last) of `rows`, by default all, as int8."""
    last = rows if last is None else last
    if not isinstance(layout, Blocks | Panels):
        return layout.unpack(packed, rows, columns, first, last)
    values = np.empty((last - first, columns), np.int8)
    threads = useful_threads(get_num_threads(), values.nbytes)
    scratch = aligned_empty(threads * UNPACK_SCRATCH_BYTES, np.uint8)
    table = levels_of(layout.name, tuple(levels)).table
    _flaws(unpack, UNPACK, threads, {
        **_layout(layout, columns), "levels": table, "packed": packed, "first": first,
        "last": last, "columns": columns, "out": values, "scratch": scratch,
    })  # fmt: skip
    return values


def _layout(layout: Blocks | Panels, columns: int) -> dict[str, int]:
    """What kernels need to know of it."""
    return {
        "layout": [*PANELS].index(layout.name),
        "fields": layout.fields,
        "planes": layout.planes if isinstance(layout, Panels) else 1,
        "lines": ROWS if isinstance(layout, Panels) else 1,
        "row_bytes": layout.row_bytes(columns),
        "tail": layout.tail_bytes(columns),
    }


def _run(
    layout: Blocks | Panels,
    codes: Codes,
    data: Array,
    columns: int,
    packed: Array,
    used: Array | None = None,
    scales: Array | None = None,
    order: Array | None = None,
    has_dead: bool = False,
    levels: Sequence[int] = (),
) -> bool:
    if order is None:
        order = np.arange(len(data), dtype=np.intp)
    found = tuple(levels or layout.values)
    table = None if are_even(found) else code_of(found)
    threads = useful_threads(get_num_threads(), layout.nbytes(len(data), columns))
    scratch = aligned_empty(threads * SCRATCH_BYTES, np.uint8)
    (bytes0, digits0), (bytes1, digits1), (bytes2, digits2) = codes.stages
    return not _flaws(pack, PACK, threads, {
        **_layout(layout, columns), "low": found[0], "down": found[1] - found[0] - 1,
        "table": table, "data": data,
        "row_stride": data.strides[0], "order": order, "rows": len(order), "columns": columns,
        "form": codes.form, "size": codes.weights,
        "first": codes.first, "stride": codes.size, "codes_at": codes.codes,
        "scale_at": -1 if codes.scale is None else codes.scale, "apart": codes.apart,
        "turned": codes.turned, "bytes0": bytes0, "digits0": digits0, "bytes1": bytes1,
        "digits1": digits1, "bytes2": bytes2, "digits2": digits2, "up": layout.step == 1,
        "dead": has_dead, "out": packed, "scales": scales, "used": used, "scratch": scratch,
    })  # fmt: skip


def turn_scales(scales: Array, count: int = 1, unused: float = 0) -> tuple[Array, int]:
    """Scales (rows, blocks), float16 or float32, as (panels, groups, 16) of `count` neighbours each
    (`ternops.encodings.panels.turn_scales`), and flaws: 1 where they differ, 2 where one is not
    finite, 4 where one is 0.

    Zeros have no say; where all of a group are, it gets `unused`.
    """
    scales = np.ascontiguousarray(scales)
    rows, blocks = scales.shape
    kind = scales.dtype
    unused, infinity = (
        int(np.array(each, kind).view(f"u{kind.itemsize}")) for each in (unused, np.inf)
    )
    turned = aligned_empty((-(-rows // ROWS), blocks // count, ROWS), kind)
    threads = useful_threads(get_num_threads(), scales.nbytes)
    flaws = _flaws(turn, TURN, threads, {
        "scales": scales, "rows": rows, "blocks": blocks, "count": count, "size": kind.itemsize,
        "unused": unused, "infinity": infinity, "out": turned,
    })  # fmt: skip
    return turned, flaws


def _flaws(job: TeamJob, record_type: np.dtype[Any], threads: int, values: dict[str, Any]) -> int:
    """Run a job on a record of numbers and the addresses of arrays; what its threads found."""
    flaws = np.zeros(threads, np.int64)
    record: Any = np.zeros((), record_type)
    if "flaws" in record.dtype.fields:
        values = {**values, "flaws": flaws}
    for name, value in values.items():
        record[name] = value.ctypes.data if isinstance(value, np.ndarray) else value or 0
    TEAM.run(job, record, threads)
    return int(np.bitwise_or.reduce(flaws))
