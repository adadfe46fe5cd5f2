"""The output head as a decoder holds it: float16 rows, int8 rows, or both for screening."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ternops.absmean import BITNET_ABSMAX, floor_of
from ternops.cpu_caches import last_level_bytes
from ternops.decoder.parts import operand_from
from ternops.decoder.weights import HalfMatrix, operand_of
from ternops.kernels.call import Call, Operand
from ternops.kernels.int8 import MAX_COLUMNS
from ternops.kernels.plan import UNPACKED
from ternops.kernels.screen import QUANTIZE, ROWS, quantize_head
from ternops.matrix import TernaryMatrix
from ternops.memory import aligned_empty
from ternops.spelling import expected_one
from ternops.team import TEAM

#: fp16: the rows of the checkpoint, float16 or bfloat16. int8: rounded, with a scale a row.
#: screened: int8 rows rule out what cannot win, the others are computed in fp16. auto: screened
#: where the head does not fit the last-level cache.
HEADS = ("auto", "fp16", "int8", "screened")


_TERNARY = "ternary"


class View(NamedTuple):
    """What a pass needs to know of the head: its product, and fields of the model's record."""

    call: Call
    model: dict[str, int]


class Head:
    """`kind` is one of HEADS, or "ternary", which a packed head is whatever was asked for; raises
    ValueError for another word, or if the head is too wide.

    rows, first: of the whole head, and where in it the weights begin, if they are a part of it.
    """

    def __init__(
        self, weights: HalfMatrix | TernaryMatrix, kind: str, threads: int,
        rows: int | None = None, first: int = 0,
    ) -> None:  # fmt: skip
        # A copy of a model is told what its head is.
        is_packed = isinstance(weights, TernaryMatrix)
        if kind not in HEADS and not (is_packed and kind == _TERNARY):
            raise ValueError(expected_one("head", kind, HEADS))
        self.weights = weights
        own, self.columns = weights.shape
        self.rows, self._first = own if rows is None else rows, first
        #: Floats of one token's logits; threads share rows in multiples of ROWS.
        self.padded = -(-self.rows // ROWS) * ROWS
        if isinstance(weights, TernaryMatrix):
            self.kind = _TERNARY
            return
        if kind == "auto":
            screens = screens_by_itself(self.rows, self.columns, weights.bits.strides[0])
            kind = "screened" if screens else "fp16"
        if kind != "fp16" and self.columns > MAX_COLUMNS:
            raise ValueError(
                f"head={kind!r}: at most {MAX_COLUMNS} columns, but the head has {self.columns}"
            )
        self.kind = kind
        if kind != "fp16":
            padded = -(-own // ROWS) * ROWS
            self.codes, self.scales, self.bounds = quantize(weights, padded, threads)

    @property
    def nbytes(self) -> int:
        """Bytes that one greedy token reads, but for the rows that a screened head computes."""
        if self.kind in ("fp16", _TERNARY):
            return self.weights.nbytes
        bounds = self.bounds.nbytes if self.kind == "screened" else 0
        return self.codes.nbytes + self.scales.nbytes + bounds

    def screens(self, exact_top: int) -> bool:
        """Whether only candidates for the `exact_top` largest logits (0: all) are computed."""
        # With more than there are peaks nothing would be ruled out.
        return self.kind == "screened" and 0 < exact_top <= self.padded // ROWS

    @property
    def group(self) -> int:
        """Columns that share a scale, 0 for all of a row."""
        return operand_of(self.weights).group

    def view(self, exact_top: int, capacity: int = 1) -> View:
        """The fields of a pass whose `exact_top` largest logits (0: all) are to be exact.

        capacity: tokens whose logits it may be.
        """
        if isinstance(self.weights, TernaryMatrix):
            return View(self._ternary_call(capacity), {"screened": 0})
        screened = self.screens(exact_top)
        first, stride = self._first, self.weights.bits.strides[0]
        exact = self.weights.bits.ctypes.data - first * stride
        model = {"screened": int(screened)}
        if screened:
            model |= {
                "exact_top": exact_top,
                "bounds": self.bounds.ctypes.data - first * self.bounds.itemsize,
                "exact": exact,
                "exact_stride": stride,
                "exact_is_bf16": int(self.weights.is_bf16),
            }
        if screened or self.kind == "int8":
            operand = Operand(
                "int8", self.codes.ctypes.data - first * self.codes.strides[0], self.codes.nbytes,
                self.rows, self.columns,
                self.scales.ctypes.data - first * self.scales.itemsize, self.scales.itemsize,
            )  # fmt: skip
        else:
            operand = operand_from(self.weights, first, self.rows)
        call = Call.of(operand, 1, kind="stream", floor=BITNET_ABSMAX, out_stride=self.padded)
        return View(call, model)

    def _ternary_call(self, capacity: int) -> Call:
        return Call.of(
            operand_from(self.weights, self._first, self.rows), capacity,
            kind="few" if capacity > 1 else "stream", floor=floor_of(True),
            out_stride=self.padded, is_blocked=True,
        )  # fmt: skip

    def scratch(self, capacity: int) -> tuple[int, int, int]:
        """Bytes that a packed head needs: of a thread, of prepared tokens, and of their offsets."""
        if not isinstance(self.weights, TernaryMatrix):
            return 0, 0, 0
        call = self._ternary_call(capacity)
        return call.scratch_bytes, call.placed_bytes, call.offsets_bytes


def screens_by_itself(rows: int, columns: int, row_bytes: int) -> bool:
    """Whether "auto" screens a head of two bytes a weight."""
    return columns <= MAX_COLUMNS and rows * row_bytes > last_level_bytes()


def quantize(
    weights: HalfMatrix, padded: int, threads: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """int8 (rows, columns with their padding), and a float32 (padded,) scale and bound a row.

    |row . x - scale * (int8 row . x)| <= bound * |x| for every float32 x, in exact arithmetic and
    as the kernels compute both, which round x for the second. Behind the last row the bound is
    infinite: nothing is known.
    """
    rows, columns = weights.shape
    codes = aligned_empty((rows, UNPACKED["int8"].stride(columns)), np.int8)
    codes[:, weights.bits.shape[1] :] = 0
    scales, bounds = aligned_empty(padded, np.float32), aligned_empty(padded, np.float32)
    scales[rows:], bounds[rows:] = 0, np.inf
    record: Any = np.zeros((), QUANTIZE)
    for name, value in {
        "is_bf16": weights.is_bf16, "rows": rows, "weights": weights.bits.ctypes.data,
        "stride": weights.bits.strides[0], "codes": codes.ctypes.data,
        "code_stride": codes.strides[0], "scales": scales.ctypes.data,
        "bounds": bounds.ctypes.data,
    }.items():  # fmt: skip
        record[name] = value
    TEAM.run(quantize_head, record, threads)
    return codes, scales, bounds
