"""All at once in one process, for long: what it holds must not grow.

python -m tests.programs.soak [--minutes MINUTES] [--rounds ROUNDS]

In each round threads multiply, generate, ask a server, start and leave streams, and fork, all at
the same time, while tuning runs; every result is compared with what it was at first. Between
rounds, when all is quiet, memory, file descriptors and threads are counted. Prints a line a round,
and a summary; 1 is returned if a result differed, or the last rounds hold more than those before.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

import ternops
from ternops.decoder import Model, Session
from ternops.encodings import ENCODINGS
from ternops.kernels import reference
from ternops.tuning import tune
from tests.helpers import cases, internals
from tests.helpers.serving import Server, make_serving, running

#: Bytes that the last third of all rounds may hold beyond the third before: what an allocator
#: keeps is never the same twice.
MORE = 8 << 20
#: Seconds of a child, and of a part of the tuning.
_CHILD, _TUNING = 60, 2.0
_PROMPT = [1, 2, 3, 4, 5]


class Held(NamedTuple):
    """What the process has between rounds."""

    memory: int
    files: int
    threads: int


def held() -> Held:
    """At this time; memory: that is this process's own."""
    gc.collect()
    process = psutil.Process()
    return Held(process.memory_full_info().uss, process.num_fds(), process.num_threads())


def products() -> Callable[[], bool]:
    """One of each encoding on one to three threads, exact."""
    x = cases.activations(5, 1021)
    made = [(cases.trits(67, 1021, encoding=name), name) for name in ENCODINGS]
    expected = [reference.matmul_int32(x, trits) for trits, _ in made]

    def run() -> bool:
        return all(
            cases.same_bits(
                ternops.matmul(x, ternops.pack(trits, encoding=name).T, threads=1 + i % 3), exact
            )
            for i, ((trits, name), exact) in enumerate(zip(made, expected, strict=True))
        )

    return run


def generation() -> Callable[[], bool]:
    """A model that is read from its file, and a session of it: the same logits."""

    def logits() -> np.ndarray:
        return Session(Model.from_pretrained(threads=2)).read(_PROMPT).copy()

    expected = logits()
    return lambda: cases.same_bits(logits(), expected)


def answers(server: Server) -> Callable[[], bool]:
    """Of a server: in one piece, streamed, and a stream that nobody reads to its end."""
    question = {"model": "tiny", "prompt": "Once", "max_tokens": 12, "temperature": 0}

    def text() -> str:
        found: str = server.ask("/v1/completions", **question)["choices"][0]["text"]
        return found

    expected = text()

    def run() -> bool:
        events = server.stream("/v1/completions", **question)
        streamed = "".join(each["choices"][0]["text"] for each in events if each["choices"])
        endless = {**question, "max_tokens": 200, "stream": True}
        with server.client.stream("POST", "/v1/completions", json=endless) as response:
            next(response.iter_lines())
        return text() == expected == streamed

    return run


def children() -> Callable[[], bool]:
    """A fork amid all this, whose child multiplies on two threads and ends."""
    trits, x = cases.trits(100, 1000), cases.activations(2, 1000)
    matrix, expected = ternops.pack(trits), reference.matmul_int32(x, trits)

    def run() -> bool:
        child = os.fork()
        if not child:
            right = cases.same_bits(ternops.matmul(x, matrix.T, threads=2), expected)
            os._exit(0 if right else 1)
        end = time.monotonic() + _CHILD
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return status == 0
            if time.monotonic() > end:
                os.kill(child, 9)
                os.waitpid(child, 0)
                return False
            time.sleep(0.005)

    return run


def together(parts: dict[str, Callable[[], bool]], seconds: float) -> dict[str, int]:
    """Run the parts in a thread each for so long, and tuning beside them; how often each ran.
    AssertionError if one was wrong."""
    end = time.monotonic() + seconds
    counts, wrong = dict.fromkeys([*parts, "tuning"], 0), list[str]()

    def repeat(name: str, run: Callable[[], bool]) -> None:
        try:
            while time.monotonic() < end and not wrong:
                if not run():
                    wrong.append(f"{name}: another result")
                counts[name] += 1
        except BaseException as error:
            wrong.append(f"{name}: {error!r}")

    threads = [threading.Thread(target=repeat, args=part) for part in parts.items()]
    for thread in threads:
        thread.start()
    tune(seconds=_TUNING)
    counts["tuning"] += 1
    for thread in threads:
        thread.join()
    assert not wrong, wrong
    return counts


def grown(rounds: list[Held]) -> list[str]:
    """What the last third of the rounds holds more of than the third before it."""
    third = len(rounds) // 3
    before, last = rounds[third : 2 * third], rounds[2 * third :]
    allowed = Held(MORE, 0, 0)
    return [
        f"{name}: {max(getattr(each, name) for each in last):,}, "
        f"before {max(getattr(each, name) for each in before):,}"
        for name in Held.__annotations__
        if max(getattr(each, name) for each in last)
        > max(getattr(each, name) for each in before) + getattr(allowed, name)
    ]


def main() -> int:
    """0 if nothing grew."""
    parser = argparse.ArgumentParser(prog="python -m tests.programs.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=30, help="of equal length (default: 30)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of forks beside threads
    seconds, rounds = 60 * arguments.minutes / arguments.rounds, list[Held]()
    counts: dict[str, int] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        internals.eager_threads(),
        running(make_serving()) as server,
    ):
        os.environ["TERNOPS_TUNING"] = str(Path(folder, "tuning.toml"))
        parts = {"products": products(), "generation": generation(), "answers": answers(server),
                 "children": children()}  # fmt: skip
        for number in range(arguments.rounds):
            for name, count in together(parts, seconds).items():
                counts[name] = counts.get(name, 0) + count
            server.wait_until_idle()
            rounds.append(held())
            print(number + 1, *(f"{each:,} {name}" for name, each in rounds[-1]._asdict().items()),
                  flush=True)  # fmt: skip
    print(", ".join(f"{count:,} {name}" for name, count in counts.items()))
    more = grown(rounds)
    print("; ".join(more) or "nothing grew")
    return int(bool(more))


if __name__ == "__main__":
    sys.exit(main())
