"""A random model sent to a spawned process gives the same logits there.

python -m tests.programs.spawned_model CONFIG

CONFIG: a `Config` as JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import sys

from ternops.decoder import Config, Model
from ternops.decoder.weights import random_weights


def logits(model: Model) -> bytes:
    """Of three tokens."""
    return model.logits([1, 2, 3]).tobytes()


if __name__ == "__main__":
    model = Model(random_weights(Config(**json.loads(sys.argv[1])), "two_bit"), threads=1)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(logits, (model,)) == logits(model)
