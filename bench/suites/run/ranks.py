"""Decoding and prefill of a layout by ranks on this machine, in turn with one process.

    mpiexec -n N python -m bench.suites.run.ranks REQUEST.json ANSWER.json

The first rank has a whole model as well, with the threads that all ranks have together; the others
wait while that decodes, and take no CPU.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.core import process
from bench.core.command import Advance
from bench.core.errors import first_line
from bench.core.measure import Case, interleave
from bench.core.mpi import mpiexec
from bench.core.results import group_of, head_bytes
from bench.suites.decoders import PROMPT
from bench.suites.run.decoding import from_empty, generate, prompt_rounds
from bench.suites.run.plan import MEMORY_SHARE, Task, needed_bytes
from ternops.cost.layouts import LAYOUTS
from ternops.decoder import Model, Session
from ternops.decoder.weights import random_weights
from ternops.ranks import launch
from ternops.ranks.follow import Follower
from ternops.ranks.group import Group


def run(
    task: Task, ranks: int, rounds: int, free: int, advance: Advance
) -> tuple[list[dict[str, Any]], list[str]]:
    """The engines of a task by so many ranks, as run.json holds them, and a line for each that
    could not be. rounds: of decoding; free: bytes of memory."""
    found: list[dict[str, Any]] = []
    left_out = []
    for engine, layers in task.layers.items():
        name = f"{task.size} {engine}, {ranks} ranks"
        needed = 2 * needed_bytes(task.size, engine, layers) + ranks * head_bytes(task.size)
        if needed > free * MEMORY_SHARE:
            left_out.append(f"{name}: needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
            continue
        request = {
            "size": task.size, "engine": engine, "layers": layers, "threads": task.threads[-1],
            "tokens": task.tokens, "rounds": rounds, "prompt": task.prompt,
        }  # fmt: skip
        launcher = [mpiexec(), "-n", str(ranks)]
        try:
            answer = process.call("bench.suites.run.ranks", request, advance, launcher)
        except process.WorkerError as error:
            left_out.append(f"{name}: {first_line(error)}")
            continue
        found += answer["ranks"]
    return found, left_out


def steps(task: Task, rounds: int) -> int:
    """How often `run` calls advance."""
    return len(task.layers) * 2 * (rounds + 1 + task.prompt * (prompt_rounds(rounds) + 1))


def measure(group: Group, request: dict[str, Any], advance: Advance) -> dict[str, Any]:
    """In the first rank: seconds a token of one process and of all ranks, by turns."""
    threads, rounds = request["threads"], request["rounds"]
    models = {"alone": _model(request, threads), "together": part_of(group, request)}
    tests: list[tuple[str, int, int, Callable[..., object]]] = [
        (f"tg{request['tokens']}", request["tokens"], rounds, generate)
    ]
    if request["prompt"]:
        tests.append((f"pp{PROMPT}", PROMPT, prompt_rounds(rounds), Session.read))
    found = []
    for test, count, times, work in tests:
        tokens = [each % LAYOUTS[request["size"]].vocabulary for each in range(count)]
        sessions = {name: Session(model) for name, model in models.items()}
        cases = {
            name: Case(
                name, partial(from_empty, session, work, tokens), count,
                # So that nobody sleeps when the clock starts.
                before=partial(from_empty, session, work, tokens[:1]),
            )
            for name, session in sessions.items()
        }  # fmt: skip
        interleave(list(cases.values()), times, advance)
        found.append({
            **{name: request[name] for name in ("size", "engine", "threads")},
            "test": test, "ranks": group.ranks,
            **{name: each.values for name, each in cases.items()},
        })  # fmt: skip
    return {"ranks": found}


def part_of(group: Group, request: dict[str, Any]) -> Model:
    """This rank's part of a model."""
    threads = request["threads"] // group.ranks
    return _model(request, threads, group)


def _model(request: dict[str, Any], threads: int, group: Group | None = None) -> Model:
    config, engine = LAYOUTS[request["size"]], request["engine"]
    part = (0, 1) if group is None else (group.rank, group.ranks)
    weights = random_weights(
        config, engine, distinct=request["layers"], group=group_of(request["size"], engine),
        part=part,
    )  # fmt: skip
    # All is read: random gates tell nothing of how many of a model's are 0.
    return Model(weights, threads, sparse="never", group=group)


def main() -> int:
    """In every rank; whatever goes wrong in one ends all."""
    group = launch.the_group()
    try:
        if group.leads:
            return process.answer(partial(_lead, group))
        follower = Follower(group)
        follower.use(part_of(group, json.loads(Path(sys.argv[1]).read_text("utf-8"))))
        follower.run()
    except BaseException as error:
        launch.stop(f"rank {group.rank}: {type(error).__name__}: {error}")
    return 0


def _lead(group: Group, request: dict[str, Any], advance: Advance) -> dict[str, Any]:
    found = measure(group, request, advance)
    group.end()
    return found


if __name__ == "__main__":
    sys.exit(main())
