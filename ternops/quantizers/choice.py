"""Which method, levels, group and encoding are meant, and a whole matrix rounded by them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.absmean import check_weights, mean_of
from ternops.encodings.encoding import MAX_LEVEL
from ternops.encodings.panels import GROUPS
from ternops.quantizers import elastic, floats, fp8, integers, means, quantiles, search, shifts
from ternops.quantizers.method import Group, Levels, Method
from ternops.spelling import expected_one

#: Every method by its name.
METHODS: dict[str, Method] = {
    each.name: each
    for each in (
        means.ABSMEAN, means.SIGN, integers.ABSMAX, search.MSE, elastic.SEQ, integers.LSQ,
        integers.INT3_METHOD, integers.INT4_METHOD, integers.INT8_METHOD, quantiles.NF4,
        quantiles.QUANTILE, floats.FP4, floats.E1M2_METHOD, floats.E3M0_METHOD, floats.MXFP4,
        floats.NVFP4, shifts.DENSESHIFT, shifts.BCT,
    )
}  # fmt: skip

ROW = "row"
AUTO = "auto"

_TERNARY = ("two_bit", "base3", "tl1", "tl2")
#: What an encoding has without a method.
DEFAULTS = {
    **dict.fromkeys(_TERNARY, "absmean"), "one_bit": "sign", "three_bit": "int3", "nibble": "int4",
    "eight_bit": "int8",
}  # fmt: skip


class Choice(NamedTuple):
    """levels: empty where they come from the matrix, `many` of them. encoding: also "auto"."""

    method: Method
    levels: Levels
    many: int
    group: Group
    encoding: str


class Quantized(NamedTuple):
    """values: int8 (rows, columns), of `levels`. scale: float32 (), (rows,) or (rows, groups)."""

    values: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]
    levels: Levels


def holders(levels: Levels) -> tuple[str, ...]:
    """The encodings that can hold levels, the usual one first."""
    count, steps = len(levels), set(np.diff(levels).tolist())
    names: tuple[str, ...] = ()
    if levels == integers.SIGNS:
        names = ("one_bit",)
    elif levels == integers.TRITS:
        names = (AUTO, *_TERNARY)
    elif count in (4, 8) and steps in ({1}, {2}):
        names = ("two_bit" if count == 4 else "three_bit",)
    return (*names, *(("nibble",) if count <= 16 else ()), "eight_bit")


def choose(
    columns: int, encoding: str = AUTO, group: int | str | None = None,
    method: str | None = None, levels: Any = None,
) -> Choice:  # fmt: skip
    """What the arguments of `ternops.quantize` mean for a matrix of so many columns.

    encoding: a name that is known, or "auto". group: one of GROUPS, or "row"; None for the
    method's own. method: one of METHODS; None for the encoding's own, with levels for that which
    has them. levels: how many, or which, ascending.
    Raises TypeError and ValueError, naming the argument, for anything else.
    """
    wanted = None if levels is None else _check_levels(levels)
    found = _method(encoding, method, wanted)
    options = _options(found, wanted)
    fitting = [each for each in options if encoding in (AUTO, *_holders(found, each, options))]
    if not fitting:
        names = [*_holders(found, next(iter(options)), options)]
        raise ValueError(
            f"encoding={encoding!r}: cannot hold the levels of method {found.name!r} "
            f"({_shown(options)}), expected {' or '.join(names)}"
        )
    count = fitting[0]
    chosen = options[count]
    name = _holders(found, count, options)[0] if encoding == AUTO else encoding
    return Choice(found, chosen, count, _group(found, group, columns), name)


def quantize(w: npt.ArrayLike, choice: Choice) -> Quantized:
    """Round a float matrix (rows, columns) as was chosen.

    Raises TypeError and ValueError as `ternops.absmean.check_weights` and `Method.quantize`.
    """
    weight = check_weights(w)
    rows, columns = weight.shape
    method, levels, many, group, _ = choice
    if group is None and method.whole:
        values, scale = method.whole(weight)
        return Quantized(values, np.asarray(scale), levels)
    size = columns if group == ROW else int(group or columns)
    groups = weight.reshape(rows * (columns // size) if size else rows, size)
    try:
        if method.fit:
            levels = method.fit(groups, many)
        values, scales = method.quantize(groups, levels)
    except ValueError:
        mean_of(weight, np.abs)  # which names the place of what is not finite
        raise
    shape = (rows,) if group == ROW else (rows, columns // size)
    return Quantized(values.reshape(rows, columns), scales.reshape(shape), levels)


def _method(encoding: str, method: str | None, wanted: int | Levels | None) -> Method:
    if method is not None:
        if not isinstance(method, str) or method not in METHODS:
            # Those of a FloatMatrix, too.
            raise ValueError(expected_one("method", method, [*METHODS, *fp8.FORMATS]))
        return METHODS[method]
    if isinstance(wanted, tuple):
        return search.MSE
    if encoding != AUTO and encoding not in DEFAULTS:
        raise ValueError(expected_one("encoding", encoding, [AUTO, *DEFAULTS]))
    usual = METHODS["absmean" if encoding == AUTO else DEFAULTS[encoding]]
    return usual if wanted is None or wanted in usual.levels else integers.ABSMAX


def _options(method: Method, wanted: int | Levels | None) -> dict[int, Levels]:
    """The levels that may be meant, by how many they are."""
    if wanted is None:
        return dict(method.levels)
    if isinstance(wanted, tuple):
        if method.is_open or wanted in method.levels.values():
            return {len(wanted): wanted}
        raise ValueError(f"levels={wanted}: method {method.name!r} has {_shown(method.levels)}")
    if wanted in method.levels:
        return {wanted: method.levels[wanted]}
    raise ValueError(f"levels={wanted}: method {method.name!r} has {_shown(method.levels)} levels")


def _holders(method: Method, count: int, options: dict[int, Levels]) -> tuple[str, ...]:
    return ("nibble", "eight_bit") if method.fit else holders(options[count])


def _shown(levels: Any) -> str:
    """How many they are, or which, if there are few."""
    counts = list(levels)
    if len(counts) == 1 and len(levels[counts[0]]) in range(1, 17):
        return str(levels[counts[0]])
    return " or ".join(map(str, counts))


def _check_levels(levels: Any) -> int | Levels:
    """A count, or levels in ascending order; TypeError and ValueError for anything else."""
    if isinstance(levels, bool):
        raise TypeError(f"levels={levels!r}: expected how many, or a sequence of integers")
    if isinstance(levels, int | np.integer):
        return int(levels)
    try:
        given = tuple(levels)
        known = tuple(int(each) for each in given)
    except (TypeError, ValueError):
        given, known = (None,), ()
    if known != given or any(isinstance(each, bool) for each in given):
        raise TypeError(f"levels={levels!r}: expected how many, or a sequence of integers")
    if list(known) != sorted(set(known)) or len(known) < 2:
        raise ValueError(f"levels={known}: expected two or more in ascending order")
    if known[0] < -MAX_LEVEL or known[-1] > MAX_LEVEL or known[-1] <= 0:
        raise ValueError(
            f"levels={known}: expected integers from {-MAX_LEVEL} to {MAX_LEVEL}, the last positive"
        )
    return known


def _group(method: Method, group: int | str | None, columns: int) -> Group:
    if group is None:
        size = method.group
    elif group == ROW:
        size = ROW
    elif isinstance(group, bool | str) or not isinstance(group, int | np.integer):
        raise TypeError(f"group={group!r}: expected an integer, {ROW!r} or None")
    else:
        size = int(group)
    if method.is_fixed and size != method.group:
        raise ValueError(f"group={group!r}: method {method.name!r} has groups of {method.group}")
    if isinstance(size, int) and (size not in GROUPS or columns % size or not columns):
        usual = f"group={group!r}" if group is not None else f"method={method.name!r}"
        other = "" if method.is_fixed else f", or group={ROW!r}"
        names = str(size) if method.is_fixed else f"one of {', '.join(map(str, GROUPS))}"
        raise ValueError(
            f"{usual}: groups of {size} in {columns} columns, expected {names} that divides them"
            f"{other}"
        )
    return size
