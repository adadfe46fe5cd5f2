"""Decoding and products beside processes that keep the CPUs busy, by the number of threads."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

import ternops
from bench.core.goals import Goal
from bench.core.measure import Case
from bench.suites.decode.cases import DecodeOptions, gaussian
from ternops.cost.layouts import SIZES
from ternops.decoder import Model, Session
from ternops.decoder.weights import Weights

SIZE = "125M"
#: Of the square matrix whose product is timed.
ROWS = 2560
#: What each number of threads gets in a round: some ten times what adapting to a change takes.
SECONDS = 1.5
_ROUNDS = 5
#: The least share of the best fixed number's speed that the default keeps, alone and beside others.
_ALONE, _BESIDE = 0.98, 0.8

#: Does one unit of work.
Step = Callable[[], object]


def busy(options: DecodeOptions) -> Iterator[Goal]:
    """the default number of threads beside busy processes, and the best fixed one"""
    fixed = sorted({1, *(1 << i for i in range(8) if 1 << i < options.threads), options.threads})
    decoding = partial(_decoding, gaussian(SIZES[SIZE]), options.tokens)
    for what, make in (("decode", decoding), ("product", _product)):
        steps = {count: make(count) for count in (*fixed, None)}
        for others in range(options.threads + 2):
            with _others(others):
                cases = _timed(what, others, steps)
            options.cases += cases.values()
            speeds = {count: 1 / case.median for count, case in cases.items()}
            best = max(fixed, key=lambda count: speeds[count])
            yield Goal(
                "busy", f"{what} beside {others} busy, default over the best fixed number",
                _BESIDE if others else _ALONE, speeds[None] / speeds[best], "x",
                ", ".join(f"{'default' if count is None else count}: {speed:.0f} a second"
                          for count, speed in speeds.items()),
            )  # fmt: skip


def _timed(what: str, others: int, steps: dict[int | None, Step]) -> dict[int | None, Case]:
    """Seconds a step on each number of threads, in turn, over SECONDS of them."""
    cases = {
        count: Case(f"{what} beside {others} busy, {count or 'default'} thread(s)", step)
        for count, step in steps.items()
    }
    for _ in range(_ROUNDS):
        for case in cases.values():
            begin, count = time.perf_counter(), 0
            while (spent := time.perf_counter() - begin) < SECONDS:
                case.run()
                count += 1
            case.values.append(spent / count)
    return cases


def _decoding(weights: Weights, tokens: int, threads: int | None) -> Step:
    session = Session(Model(weights, threads))

    def step() -> None:
        if session.position == tokens:  # a token takes longer, the more there are before it
            session.position = 0
        int(np.argmax(session.step(session.position, exact_top=1)))

    step()
    return step


def _product(threads: int | None) -> Step:
    random = np.random.default_rng(0)
    matrix = ternops.pack(random.integers(-1, 2, (ROWS, ROWS), np.int8)).T
    x = random.integers(-128, 128, ROWS).astype(np.int8)
    ternops.matmul(x, matrix, threads=threads)
    return lambda: ternops.matmul(x, matrix, threads=threads)


@contextmanager
def _others(count: int) -> Iterator[None]:
    """So many other processes that do nothing but run."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(SECONDS / 10)
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()
