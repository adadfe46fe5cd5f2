"""Matrices and a random model sent to another process give the same bits there.

python -m tests.programs.sent_to_processes METHOD CONFIG

METHOD: "spawn" or "forkserver", of multiprocessing. CONFIG: a `Config` as JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Iterator
from typing import Any

import ternops
from ternops.decoder import Config, Model
from ternops.decoder.weights import random_weights
from ternops.encodings import ENCODINGS, PANELS
from tests.helpers import cases


def matrices() -> Iterator[Any]:
    """Of each encoding and each kind of scale, and a transpose."""
    for name in ENCODINGS:
        trits = cases.trits(37, 96, encoding=name)
        yield from (ternops.pack(trits, each, name) for each in cases.scales(37).values())
        if name in PANELS:
            yield cases.grouped(37, 192, cases.groups_of(name)[0], name)[2]
    yield ternops.pack(trits, encoding=name).T
    yield ternops.quantize(cases.floats(37, 96), encoding="fp8")


def products(matrix: Any) -> bytes:
    """From either side."""
    rows, columns = matrix.shape
    left, right = matrix @ cases.floats(columns), cases.floats(2, rows) @ matrix
    return bytes(left.tobytes() + right.tobytes())


def logits(model: Model) -> bytes:
    """Of three tokens."""
    return model.logits([1, 2, 3]).tobytes()


if __name__ == "__main__":
    method, settings = sys.argv[1:]
    model = Model(random_weights(Config(**json.loads(settings)), "two_bit"), threads=1)
    sent = list(matrices())
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(logits, (model,)) == logits(model)
        assert pool.map(products, sent) == [products(each) for each in sent]
