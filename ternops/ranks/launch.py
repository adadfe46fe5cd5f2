"""What each process of a program does that `mpirun` has started: lead, or follow; load its part."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
import weakref
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import ternops
from ternops import __version__ as version
from ternops.decoder.formats.loading import open_checkpoint
from ternops.decoder.formats.part_file import PartFile
from ternops.decoder.model import Model
from ternops.encodings import ENCODINGS
from ternops.ranks.follow import Follower
from ternops.ranks.group import LOAD, MEASURE, Group, uninterrupted
from ternops.ranks.plan import choose
from ternops.ranks.split import parse_layout, stage_bounds
from ternops.ranks.watch import Watch
from ternops.ranks.world import host, mpi, rank, size
from ternops.threads import usable_cpus

#: What loading may end with that is said in one line.
_ERRORS = ValueError, TypeError, OSError, ImportError, MemoryError
#: The models that were loaded, of which the others have the last one.
_LOADED: list[weakref.ref[Model]] = []
#: Bytes of what a process tells of its part.
_TOLD = 4096


@cache
def the_group() -> Group:
    """All processes of this program."""
    return Group()


def run(main: Callable[[], int]) -> int:
    """Let the first process run `main` and the others decode with it; the exit code."""
    if size() == 1:
        return main()
    group = the_group()
    watch = Watch(group.hosts, stop)
    if group.leads:
        try:
            return main()
        finally:
            group.end()
            watch.stop()
    warnings.simplefilter("ignore")  # the first one says the same
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # and ends the others
    try:
        Follower(group, follow_load).run()
    except BaseException as error:
        stop(f"rank {rank()} on {host()}: {type(error).__name__}: {error}")
    watch.stop()
    return 0


def stop(reason: str) -> NoReturn:
    """End all processes, with one line that says why."""
    line = " ".join(reason.splitlines())
    print(f"ternops: error: {line}", file=sys.stderr, flush=True)
    mpi().COMM_WORLD.Abort(2)
    os._exit(2)


def load(
    path: str | os.PathLike[str] | None,
    progress: Callable[[int, int], None] | None = None,
    layout: str | None = None,
    **options: Any,
) -> Model:
    """`Model.from_pretrained` in every process, each with its part; called by the first one.

    layout: "tp=2,pp=2" for a pipeline of two stages of two processes each, which share out every
    layer of theirs; by default what `ternops.ranks.plan` chooses, which is told on stderr where it
    is more than one stage. threads: of each process, by default its part of
    the CPUs that it may use.
    Raises what that raises, and ValueError, naming the rank and its host, for what another process
    cannot load, or has otherwise.
    """
    if size() == 1:
        return Model.from_pretrained(path, progress=progress, **options)
    group = the_group()
    if _LOADED and _LOADED[-1]() is not None:
        raise ValueError("model: several processes have one already, expected one at a time")
    where = None if path is None else os.fspath(path)
    bounds = _bounds(group, path, layout, options)
    text = json.dumps({"path": where, "bounds": bounds, **options}).encode()
    words = np.frombuffer(text.ljust(-(-len(text) // 8) * 8), np.int64)
    with uninterrupted():
        group.send(LOAD, words)
        given = {"path": path, "progress": progress, "bounds": bounds, **options}
        model, error = _load(group, given)
        told = _told(group, model, error)
    if error is not None:
        raise error
    assert model is not None
    if reason := _difference(told):
        raise ValueError(reason)
    _LOADED.append(weakref.ref(model))
    return model


def _bounds(
    group: Group, path: str | os.PathLike[str] | None, layout: str | None, options: dict[str, Any]
) -> list[int]:
    """The first layer of each stage, and how many layers there are; [] for one stage."""
    told = None if layout is None else parse_layout(layout, group.ranks).pp
    checkpoint = open_checkpoint(path, quantize=options.get("quantize"))
    if isinstance(checkpoint, PartFile):
        return checkpoint.bounds_for(group.ranks, layout)
    config, kind = checkpoint.config, options.get("weights", "ternary")
    if kind == "ternary":
        kind = checkpoint.preferred_encoding()
    bits = ENCODINGS[kind].bits if kind in ENCODINGS else 16.0
    layer = config.linear_weights / config.layers * bits / 8
    if told is None:
        threads = options.get("threads") or max(1, usable_cpus() // group.ranks)

        def gather_s(stages: int) -> float:
            with uninterrupted():
                group.send(MEASURE, np.array([stages, config.hidden], np.int64))
                return group.gather_s(stages, config.hidden)

        choice = choose(config, group.hosts, layer, threads, gather_s)
        told = choice.stages
        if told > 1:
            print(f"ternops: {choice.reason}", file=sys.stderr, flush=True)
    if told == 1:
        return []
    # float16, or a byte where an int8 copy is scanned, as it is of most heads that count.
    each = 2 if options.get("head") == "fp16" else 1
    return stage_bounds(config, told, layer, each * config.vocabulary * config.hidden)


def follow_load(order: bytes) -> Model | None:
    """What another process does meanwhile; None where it cannot."""
    group = the_group()
    model, error = _load(group, json.loads(order))
    _told(group, model, error)
    return model


def _load(group: Group, options: dict[str, Any]) -> tuple[Model | None, Exception | None]:
    """This process's part, or why there is none."""
    try:
        group.arrange(options.pop("bounds"))
        if options.get("threads") is None:
            options["threads"] = _cpus(group)
        return Model.from_pretrained(options.pop("path"), group=group, **options), None
    except _ERRORS as error:
        return None, error


def _cpus(group: Group) -> int:
    """Threads of a process: those that may use the same CPUs of a machine share them."""
    own = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    places = group.tell_all(f"{host()} {own}", _TOLD)
    return max(1, usable_cpus() // places.count(places[group.rank]))


def _told(group: Group, model: Model | None, error: Exception | None) -> list[dict[str, str]]:
    """What each process has loaded, or why it could not."""
    found = {"host": host(), "error": "" if error is None else str(error) or repr(error)}
    if model is not None:
        found |= _identity(model)
    text = json.dumps(found)
    if len(text) > _TOLD:  # of a long path
        text = json.dumps(found | {"error": found["error"][: _TOLD // 16]})
    return [json.loads(each) for each in group.tell_all(text, _TOLD)]


def _identity(model: Model) -> dict[str, str]:
    """What must be the same in all processes, by the words for it. Tiers and encodings need not:
    all give the same bits."""
    config, weights, span = model.config, model.weights, model.split.layers
    whole = zlib.crc32(weights.norm.tobytes(), zlib.crc32(repr(config).encode()))
    layers = 0
    for layer in weights.layers:
        for vector in layer.floats:
            layers = zlib.crc32(vector.tobytes(), layers)
    return {
        "ternops": f"{version} {_sources():08x}",
        "model": f"{whole:08x}",
        "digest of the model's parts": weights.digest or "none",
        f"model from layer {span.first} on": f"{layers:08x}",
        "head": model.head.kind,
        "cache": model.cache,
    }


def _sources() -> int:
    """A checksum of this package's files: two versions may have the same number."""
    checksum, package = 0, Path(ternops.__file__).parent
    for path in sorted(package.rglob("*.py")):
        checksum = zlib.crc32(path.read_bytes(), checksum)
    return checksum


def _difference(told: list[dict[str, str]]) -> str:
    """Why processes cannot decode together, in one line; "" if they can."""
    seen: dict[str, tuple[str, int]] = {}
    for number, each in enumerate(told):
        place = f"rank {number} on {each['host']}"
        if each["error"]:
            return f"{place}: {each['error']}"
        for name in each.keys() - {"host", "error"}:
            expected, other = seen.setdefault(name, (each[name], number))
            if each[name] != expected:
                return f"{place}: {name} is {each[name]}, expected {expected}, as on rank {other}"
    return ""
