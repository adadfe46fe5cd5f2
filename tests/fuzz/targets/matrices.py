"""Files of matrices, of tuning and of machines: what is accepted computes what it says."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import tomli_w

import ternops
from ternops.cost import predict
from ternops.cost import profile as profiles
from ternops.cost.layouts import SIZES
from ternops.encodings import ENCODINGS
from ternops.isa.detect import TIER
from ternops.kernels import tuned
from ternops.kernels.tiles import candidates, kinds_of
from ternops.matrix import TernaryMatrix
from tests.fuzz.mutations import of_safetensors, of_text, seal_content
from tests.fuzz.target import Finding, Target, in_one_line, new_folder
from tests.helpers import cases

#: Weights of a matrix that is unpacked and multiplied: those of a small file may be many.
_FEW = 1 << 22
_folder = cache(new_folder)


def _matrix_seeds() -> Sequence[bytes]:
    path, seeds = _folder() / "seed", []
    for encoding in ENCODINGS:
        matrix = ternops.pack(cases.trits(3, 9, encoding=encoding), cases.scales(3)["rows"],
                              encoding)  # fmt: skip
        matrix.save(path)
        seeds.append(path.read_bytes())
    for method in ("nf4", "mxfp4", "e4m3"):
        ternops.quantize(cases.floats(4, 64), method=method).save(path)
        seeds.append(path.read_bytes())
    ternops.quantize(cases.floats(4, 128), group=64).T.save(path)
    seeds.append(path.read_bytes())
    ternops.stack(cases.floats(8, 12), blocks=2, rank=2).save(path)
    return [*seeds, path.read_bytes()]


def _matrix(data: bytes) -> bool:
    path = _folder() / "matrix"
    path.write_bytes(data)
    with in_one_line(ValueError):
        matrix = ternops.load(path)
    if matrix.size > _FEW:
        return True
    dense = matrix.to_dense()
    x = cases.activations(2, matrix.shape[1])
    result = x @ matrix.T
    if dense.shape != matrix.shape or result.shape != (2, matrix.shape[0]):
        raise Finding(f"shapes {dense.shape}, {result.shape} of {matrix.shape}")
    if isinstance(matrix, TernaryMatrix) and matrix.scale is None:
        exact = x.astype(np.int64) @ matrix.to_trits().astype(np.int64).T
        if not np.array_equal(exact, result):
            raise Finding("a product is not that of the trits")
    return True


def _tuning_seeds() -> Sequence[bytes]:
    table: dict[str, Any] = {"version": "0", "date": "2026-01-01", **tuned.identity(),
                             "auto": {"cached": "two_bit", "streamed": "base3"}}  # fmt: skip
    for name, encoding in ENCODINGS.items():
        for kind in kinds_of(encoding):
            tile = next(iter(candidates(name, kind, TIER)))
            table.setdefault(name, {})[kind] = {"tile": tile._asdict(), "gain": [1.0, 1.0, 1.0]}
    return [tomli_w.dumps(table).encode()]


def _tuning(data: bytes) -> bool:
    path = _folder() / "tuning.toml"
    path.write_bytes(data)
    with in_one_line(tuned.TuningError):
        found = tuned.read(path)
    for (name, kind), tile in found.tiles.items():
        if tile not in list(candidates(name, kind, TIER)):
            raise Finding(f"{name}.{kind} = {tile}")
    return True


def _hardware_seeds() -> Sequence[bytes]:
    return [path.read_bytes() for path in profiles.shipped().values()][:4]


def _hardware(data: bytes) -> bool:
    path = _folder() / "machine.toml"
    path.write_bytes(data)
    with in_one_line(ValueError):
        machine = profiles.load(path)
        predict(SIZES["700M"], machine, "two_bit")
    return True


_WORDS = (
    "[", "]", "[[", "]]", "=", '"', "'''", ".", "{", "}", ",", "\n", "inf", "nan", "-1", "0",
    "1e999", "9" * 5000, "true", "2020-01-01", "#", "\\u0000", "tile", "auto", "[[[[" * 200, "unit",
)  # fmt: skip
TARGETS = {
    each.name: each
    for each in (
        Target("matrix", _matrix_seeds, of_safetensors(seal_content), _matrix),
        Target("tuning", _tuning_seeds, of_text(_WORDS), _tuning),
        Target("hardware", _hardware_seeds, of_text(_WORDS), _hardware),
    )
}
