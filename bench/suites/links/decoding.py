"""Decode with a model, alone or as one of several ranks, and print how long a token takes.

python -m bench.suites.links.decoding MODEL THREADS
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np

from ternops.decoder import Model, Session
from ternops.ranks import launch, world

_TOKENS, _FIRST = 24, 8  # timed ones, and before them


def _time(model: Model) -> int:
    """The median, as JSON."""
    session, token, taken = Session(model), 1, []
    for _ in range(_FIRST + _TOKENS):
        start = time.perf_counter()
        token = int(np.argmax(session.step(token)))
        taken.append(time.perf_counter() - start)
    seconds = statistics.median(taken[_FIRST:])
    context = _FIRST + _TOKENS // 2
    print(json.dumps({"seconds": seconds, "encoding": model.encoding, "context": context}))
    return 0


def main() -> int:
    """In every rank; the head is fp16, as the cost model counts it."""
    path, threads = sys.argv[1], int(sys.argv[2])
    if world.size() == 1:
        return _time(Model.from_pretrained(path, threads=threads, head="fp16"))
    return launch.run(lambda: _time(launch.load(path, threads=threads, head="fp16")))


if __name__ == "__main__":
    raise SystemExit(main())
