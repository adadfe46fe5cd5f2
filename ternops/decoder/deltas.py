"""Fine-tunes of a decoder as one bit a weight each, beside the base that they share."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.absmean import MIN_ABSMAX
from ternops.bitdelta import DeltaMatrix
from ternops.decoder.architectures import DELTA_SLOTS, LINEAR
from ternops.decoder.config import Config
from ternops.decoder.records import RUN, SIGNS
from ternops.decoder.scratch import padded_bytes
from ternops.decoder.weights import HalfMatrix, Layer, Weights, operand_of
from ternops.encodings.one_bit import ONE_BIT
from ternops.kernels.call import Call, Operand
from ternops.kernels.operands import OPERANDS
from ternops.kernels.plan import make_plan
from ternops.kernels.tiles import MANY
from ternops.matrix import TernaryMatrix
from ternops.memory import HoldsAddresses, aligned_zeros
from ternops.packed import Packed

_SLOTS = tuple(LINEAR)


@dataclass(frozen=True)
class Delta:
    """A fine-tune of a base. layers: of each layer the signs of its linear layers, in one bit, each
    with one scale; base: the `fingerprint` of what they are added to."""

    layers: list[dict[str, TernaryMatrix]]
    base: str

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(each.nbytes for layer in self.layers for each in layer.values())


def fingerprint(config: Config, first_rows: Mapping[tuple[int, str], npt.NDArray[Any]]) -> str:
    """What tells a base from others: its architecture, its shapes, and the first row of each linear
    layer, in float16, in which each way to hold it has the same."""
    crc = 0
    for layer in range(config.layers):
        for name, shape in config.linear_shapes(layer).items():
            crc = zlib.crc32(f"{config.architecture} {layer} {name} {shape}".encode(), crc)
            with np.errstate(over="ignore"):
                crc = zlib.crc32(first_rows[layer, name].astype(np.float16).tobytes(), crc)
    return f"{crc:08x}"


def first_row(matrix: TernaryMatrix | HalfMatrix) -> npt.NDArray[np.float32]:
    """Of a matrix, as `fingerprint` takes it."""
    if isinstance(matrix, HalfMatrix):
        return matrix.to_dense(slice(0, 1))
    return matrix._packed.dense(0, 1)


def fingerprint_of(weights: Weights) -> str:
    """That of a model in memory."""
    rows = {
        (number, name): first_row(each)
        for number, layer in enumerate(weights.layers)
        for name, each in layer.linear.items()
    }
    return fingerprint(weights.config, rows)


class Deltas:
    """Those of a model by their names; raises ValueError for one of another base or other shapes.

    Each has a table of SIGNS, (layers, slots), and its scales in another.
    """

    def __init__(self, weights: Weights, deltas: Mapping[str, Delta]) -> None:
        self.of = dict(deltas)
        found = fingerprint_of(weights) if deltas else ""
        self._tables: dict[str, npt.NDArray[Any]] = {}
        self._scales: dict[str, npt.NDArray[np.float32]] = {}
        for name, each in deltas.items():
            check_shapes(f"deltas[{name!r}]", weights.config, each)
            if each.base != found:
                raise ValueError(
                    f"deltas[{name!r}]: of a base whose checksum is {each.base}, expected this "
                    f"model's, {found}"
                )
            self._scales[name] = _scales_of(each)
            self._tables[name] = _table(each, self._scales[name])

    def __bool__(self) -> bool:
        return bool(self.of)

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return sum(each.nbytes for each in self.of.values())

    def address(self, name: str | None) -> int:
        """Of a delta's table, 0 for None; ValueError, with the known names, for another one."""
        if name is None:
            return 0
        if name not in self._tables:
            known = ", ".join(map(repr, self.of)) or "none: the model has no deltas"
            raise ValueError(f"delta={name!r}: expected one of {known}")
        return int(self._tables[name].ctypes.data)

    def scales(self, name: str) -> npt.NDArray[np.float32]:
        """What the signs of a delta are multiplied by, (layers, slots); those that are written
        there count from the next pass on, and belong to the delta of `with_scales`."""
        self.address(name)
        return self._scales[name]

    def with_scales(self, name: str) -> Delta:
        """A delta with the scales that it has now."""
        layers: list[dict[str, TernaryMatrix]] = []
        for row, layer in zip(self.scales(name), self.of[name].layers, strict=True):
            layers.append({})
            for key, matrix in layer.items():
                p = matrix._packed
                scale = np.array(row[_slot(key)], np.float32)
                packed = Packed(p.bytes, p.rows, p.columns, scale, p.encoding)
                layers[-1][key] = TernaryMatrix(packed)
        return Delta(layers, self.of[name].base)

    def layers(self, weights: Weights, name: str | None) -> list[Any]:
        """The layers of the base, or those whose linear layers are a `DeltaMatrix`."""
        self.address(name)
        if name is None:
            return weights.layers
        found = []
        for layer, signs in zip(weights.layers, self.of[name].layers, strict=True):
            linear: dict[str, Any] = {
                key: DeltaMatrix(base, signs[key]) for key, base in layer.linear.items()
            }
            found.append(Layer(linear, layer.norms, layer.biases, layer.vectors))
        return found


def check_shapes(what: str, config: Config, delta: Delta) -> None:
    """Raises ValueError where a delta has not the linear layers of a model."""
    if len(delta.layers) != config.layers:
        raise ValueError(f"{what}: {len(delta.layers)} layers, expected {config.layers}")
    for number, layer in enumerate(delta.layers):
        found = {name: each.shape for name, each in layer.items()}
        for name, shape in config.linear_shapes(number).items():
            if found.get(name) != shape:
                raise ValueError(
                    f"{what}: {name} in layer {number} has shape {found.get(name)}, expected "
                    f"{shape}"
                )
        if len(found) > len(config.linear_shapes(number)):
            raise ValueError(f"{what}: layer {number} has {', '.join(found)}")


def _slot(name: str) -> int:
    return _SLOTS.index(DELTA_SLOTS.get(name, name))


def _scales_of(delta: Delta) -> npt.NDArray[np.float32]:
    """float32 (layers, slots); 0 where there is no matrix."""
    scales = np.zeros((len(delta.layers), len(_SLOTS)), np.float32)
    for row, layer in zip(scales, delta.layers, strict=True):
        for name, matrix in layer.items():
            row[_slot(name)] = matrix.scale
    return scales


def _table(delta: Delta, scales: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    table = np.zeros(scales.shape, SIGNS)
    addresses = scales.ctypes.data + 4 * np.arange(scales.size).reshape(scales.shape)
    for row, places, layer in zip(table, addresses, delta.layers, strict=True):
        for name, matrix in layer.items():
            operand, slot = operand_of(matrix), _slot(name)
            stride = make_plan(operand.encoding, operand.columns, "stream").stride
            row[slot] = operand.address, stride, places[slot]
    return table


class TunedScratch(HoldsAddresses):
    """What passes of up to `capacity` tokens of a shape class need for the deltas of their tokens.

    columns: of the linear layers; rows: the most of one, all of which a thread computes that is
    alone. fields: of the pass's record.
    """

    def __init__(
        self, kind: str, capacity: int, threads: int, columns: tuple[int, ...], rows: int
    ) -> None:
        kinds = ["stream"]  # of a run of one token, of several, of all of a pass
        if capacity > 1:
            kinds += ["few", MANY] if kind == MANY else ["few"]
        plans = {each: [make_plan(ONE_BIT.name, n, each) for n in columns] for each in kinds}
        self._one, self._few, self._whole = (
            plans[kinds[min(at, len(kinds) - 1)]][0] for at in range(3)
        )
        operand = Operand(ONE_BIT.name, 0, 0, 0, columns[0], scale_step=0)
        call = Call.of(operand, capacity, kind=kinds[-1], floor=MIN_ABSMAX)
        tokens = call.prepared + 1  # a pair is read where a run has one more
        every = [plan for each in plans.values() for plan in each]
        record, scratch, out, placed, sums = map(padded_bytes, (
            OPERANDS.itemsize, max(plan.scratch_bytes for plan in every), 4 * capacity * rows,
            tokens * max(plan.placed_bytes for plan in every), 4 * tokens,
        ))  # fmt: skip
        prepared = placed + 2 * sums
        own = record + scratch + out + (prepared if capacity == 1 else 0)
        self._memory = aligned_zeros(threads * own + prepared, np.uint8)
        self._runs = np.zeros(capacity, RUN)
        self._tables = np.zeros(capacity, np.intp)
        self._key, self._found = b"", (0, 0)
        address = self._memory.ctypes.data
        for thread in range(threads):
            start = address + thread * own
            base = start + own - prepared if capacity == 1 else address + threads * own
            view = self._memory[thread * own : thread * own + OPERANDS.itemsize].data
            steps = base + placed + sums
            call.write_apart(view, 0, 0, base, base + placed, steps, start + record)
        self.fields = {
            "tuned": address, "tuned_bytes": own, "tuned_block": ONE_BIT.block,
            "tuned_out": record + scratch, "tuned_slots": len(_SLOTS),
            "run_table": self._runs.ctypes.data,
        }  # fmt: skip

    def place(self, at: int, count: int, table: int) -> None:
        """Let tokens [at, at + count) of the next pass have the delta of a table (0: none)."""
        self._tables[at : at + count] = table

    def begin(self, tokens: int) -> tuple[int, int]:
        """Write the runs of a pass; how many there are, and what prepares tokens for them."""
        tables = self._tables[:tokens]
        key = tables.tobytes()
        if key == self._key:
            return self._found
        starts = [0, *(np.flatnonzero(np.diff(tables)) + 1).tolist(), tokens]
        pairs = [(a, b) for a, b in itertools.pairwise(starts) if tables[a]]
        plan = self._whole if pairs == [(0, tokens)] else self._few
        for row, (first, end) in zip(self._runs, pairs, strict=False):
            multiply = self._one if end - first == 1 and plan is self._few else plan
            row["first"], row["count"] = first, end - first
            row["signs"], row["multiply"] = tables[first], multiply.multiply
        self._key, self._found = key, (len(pairs), plan.prepare)
        return self._found
