"""The data types and groups that weights are rounded to, and how many bits that takes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.encodings.panels import GROUPS as ALL_GROUPS
from ternops.float_matrix import quantize_floats
from ternops.quantizers import METHODS, choose, fp8, quantize

Array = npt.NDArray[Any]
ROW = "row"
GROUPS: tuple[int | str, ...] = (ROW, 128, 64, 32, 16)
FLOAT_BITS = 16  # of a weight that is not rounded, and of a scale


class DataType(NamedTuple):
    """method, levels: see `ternops.quantize`. bits: of a weight as its encoding stores it."""

    name: str
    method: str
    encoding: str
    bits: float
    levels: int | tuple[int, ...] | None = None
    scale_bits: int = FLOAT_BITS

    @property
    def groups(self) -> tuple[int | str, ...]:
        own = METHODS.get(self.method)
        if own is None:  # of floats, which have a scale a row
            return (ROW,)
        return (own.group,) if own.is_fixed and own.group is not None else GROUPS


DATA_TYPES = {
    each.name: each
    for each in (
        DataType("sign", "sign", "one_bit", 1),
        DataType("ternary", "absmean", "base3", 1.6),
        DataType("ternary, mse", "mse", "base3", 1.6, 3),
        DataType("ternary, seq", "seq", "base3", 1.6, 3),
        DataType("2-bit, seq", "seq", "two_bit", 2, 4),
        DataType("2-bit, mse", "mse", "two_bit", 2, (-3, -1, 1, 3)),
        DataType("int3", "int3", "three_bit", 3),
        DataType("int3, lsq", "lsq", "three_bit", 3, 8),
        DataType("int4", "int4", "nibble", 4),
        DataType("int4, lsq", "lsq", "nibble", 4, 16),
        DataType("nf4", "nf4", "nibble", 4),
        DataType("fp4", "fp4", "nibble", 4),
        DataType("e1m2", "e1m2", "nibble", 4),
        DataType("e3m0", "e3m0", "nibble", 4),
        DataType("quantile", "quantile", "nibble", 4),
        DataType("denseshift", "denseshift", "nibble", 4),
        DataType("bct", "bct", "nibble", 4, 16, scale_bits=8),
        DataType("mxfp4", "mxfp4", "nibble", 4, scale_bits=8),
        DataType("nvfp4", "nvfp4", "nibble", 4, scale_bits=8),
        DataType("int8", "int8", "eight_bit", 8),
        DataType("e4m3", "e4m3", fp8.ENCODING, 8, scale_bits=32),
        DataType("e5m2", "e5m2", fp8.ENCODING, 8, scale_bits=32),
    )
}
FLOAT = "float16"


class Rounded(NamedTuple):
    weight: npt.NDArray[np.float32]
    bits: float


def fitting(group: int | str, columns: int) -> int | str:
    """The largest group of columns up to `group` that divides them; a row if it has no more."""
    if not isinstance(group, int) or group >= columns:
        return ROW
    return max((each for each in ALL_GROUPS if each <= group and columns % each == 0), default=ROW)


def rounded(weight: Array, kind: DataType, group: int | str) -> Rounded:
    """float (rows, columns) as its data type has it, and the bits of values and scales."""
    columns = weight.shape[1]
    if kind.encoding == fp8.ENCODING:
        matrix = quantize_floats(weight, method=kind.method)
        bits = kind.bits * weight.size + kind.scale_bits * len(weight)
        return Rounded(matrix.to_dense(), bits)
    size = group if METHODS[kind.method].is_fixed else fitting(group, columns)
    chosen = choose(columns, kind.encoding, size, kind.method, kind.levels)
    values, scale, _ = quantize(weight, chosen)
    count = max(1, scale.size // len(weight))  # of scales a row
    wide = np.repeat(scale.reshape(len(weight), count), columns // count, axis=1)
    return Rounded(values * wide, kind.bits * weight.size + kind.scale_bits * scale.size)


def best_by_budget(rows: list[dict[str, Any]], budgets: list[float]) -> list[str]:
    """For each number of total bits: the name of the rows whose line of sizes is lowest there.

    rows: with "name", "bits" and "perplexity". Between sizes a line is straight in logarithms.
    """
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        point = float(np.log(row["bits"])), float(np.log(row["perplexity"]))
        lines.setdefault(row["name"], []).append(point)
    found = {
        name: np.interp(np.log(budgets), *np.array(sorted(line)).T) for name, line in lines.items()
    }
    return [min(found, key=lambda name: found[name][at]) for at in range(len(budgets))]
