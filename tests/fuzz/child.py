"""One target in a process of its own, within limits: ``python -m tests.fuzz.child TARGET ...``.

Inputs are made from the target's seeds by its own mutations. Where atheris is installed, it keeps
those that reach branches none has reached before, and goes on from them; elsewhere all are made
from seeds and from one another's, which are drawn at random. Both are the same tests.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import hashlib
import importlib
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from types import FrameType, FunctionType
from typing import Any

from tests.fuzz.target import Refused

#: Seconds of this process's CPU time that an input may take, and of anybody's.
CPU_SECONDS, SECONDS = 2.0, 60
#: Bytes of addresses beyond what the process has when it begins. A small model takes slabs of 66 MB
#: of them, of which it touches little.
MEMORY = 1 << 30


class TooMuch(AssertionError):
    """An input takes more memory than its length explains."""


class TooLong(BaseException):
    """An input takes longer than it may; no handler of errors catches it."""


class Child:
    """Tries inputs, counts them, and keeps those that are findings."""

    def __init__(self, target: Any, folder: Path) -> None:
        self.target, self.folder = target, folder
        self.counts = {"inputs": 0, "accepted": 0, "findings": 0, "slowest_ms": 0.0}
        self._known: set[str] = set()
        self._told = 0.0
        folder.mkdir(parents=True, exist_ok=True)

    def limit(self) -> None:
        """Of memory, beyond what there is; of time, before each input."""
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGPROF, _too_long)

    def try_one(self, data: bytes) -> None:
        """Check one input; a finding is kept once for each place in the sources."""
        self._current(data)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        before = resident("VmRSS", anew=True)
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            with contextlib.suppress(Refused):
                self.counts["accepted"] += bool(self.target.check(data))
            touched = resident("VmHWM") - before
            if touched > 2 * len(data) + self.target.touches:
                raise TooMuch(f"{touched:,} bytes of memory for an input of {len(data):,}")
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._keep(data, error)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        self.counts["inputs"] += 1
        taken = 1000 * (time.process_time() - start)
        self.counts["slowest_ms"] = max(self.counts["slowest_ms"], round(taken, 1))
        if time.monotonic() - self._told > 1:
            self.tell()

    def tell(self) -> None:
        """Leave the counts for who has started this process."""
        self._told = time.monotonic()
        (self.folder / "counts.json").write_text(json.dumps(self.counts))

    def _current(self, data: bytes) -> None:
        """What a process that ends at once leaves behind."""
        (self.folder / "current").write_bytes(data)

    def _keep(self, data: bytes, error: BaseException) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "/ternops/" in frame.filename] or frames
        place = f"{type(error).__name__} {ours[-1].filename} {ours[-1].lineno}"
        if place in self._known:
            return
        self._known.add(place)
        self.counts["findings"] += 1
        name = hashlib.sha256(data).hexdigest()[:12]
        (self.folder / name).write_bytes(data)
        with open(self.folder / f"{name}.txt", "w", errors="replace") as file:
            traceback.print_exception(error, file=file)


def resident(name: str, anew: bool = False) -> int:
    """Bytes of memory that this process has in use ("VmRSS"), or had at most ("VmHWM").

    anew: forget what it had at most until now.
    """
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.partition(f"{name}:")[2].split()[0])


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TooLong(f"more than {CPU_SECONDS} s of CPU time")


def _by_chance(child: Child, seconds: float, runs: int, seed: int) -> None:
    numbers, pool = random.Random(seed), list(child.target.seeds())
    for data in tuple(pool):
        child.try_one(data)
    end = time.monotonic() + seconds
    while time.monotonic() < end and child.counts["inputs"] < runs:
        data = child.target.mutate(numbers.choice(pool), numbers)
        child.try_one(data)
        if numbers.random() < 0.01 and len(data) < 1 << 18:  # edits of edits
            if len(pool) < 200:
                pool.append(data)
            else:
                pool[numbers.randrange(len(child.target.seeds()), 200)] = data
    child.tell()


def _instrument(guides: tuple[str, ...], atheris: Any) -> None:
    """Let atheris see the branches of the functions of some modules, which are imported by now.

    Not by its hook of imports, which takes whole packages: kernels are compiled from their bytes.
    """
    for name, module in list(sys.modules.items()):
        for each in list(vars(module).values()) if name.startswith(guides) else ():
            members = [each, *vars(each).values()] if isinstance(each, type) else [each]
            for member in members:
                function = getattr(member, "__func__", member)
                if isinstance(function, FunctionType) and function.__module__ == name:
                    atheris.instrument_func(function)


def _guided(child: Child, seconds: float, seed: int, atheris: Any) -> None:
    seeds = child.target.seeds()
    corpus = tempfile.mkdtemp(prefix="ternops-fuzz-")
    for number, data in enumerate(seeds):
        Path(corpus, str(number)).write_bytes(data)

    def mutate(data: bytes, most: int, number: int) -> bytes:
        return bytes(child.target.mutate(bytes(data), random.Random(number)))[:most]

    longest = str(2 * max(map(len, seeds)) + 4096)
    options = [
        f"-max_total_time={max(1, round(seconds))}", f"-max_len={longest}", f"-seed={seed + 1}",
        "-timeout=3600", "-rss_limit_mb=0", "-len_control=0", "-verbosity=0",
    ]  # fmt: skip
    atheris.Setup(["fuzz", *options, corpus], child.try_one, custom_mutator=mutate)
    child.tell()
    atheris.Fuzz()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--inputs", type=int, default=sys.maxsize)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--by-chance", action="store_true")
    parser.add_argument("--only", type=Path, nargs="*", help="try these files and nothing else")
    arguments = parser.parse_args()
    os.environ["TERNOPS_TUNING"] = "off"
    os.environ["HF_HUB_OFFLINE"] = "1"
    atheris: Any = None
    if not arguments.by_chance and arguments.only is None:
        with contextlib.suppress(ImportError):
            atheris = importlib.import_module("atheris")
    from tests.fuzz import targets

    child = Child(targets.load(arguments.target), arguments.folder)
    warnings.simplefilter("ignore")
    for data in child.target.seeds():
        with contextlib.suppress(Exception):  # which is a finding when it is tried
            child.target.check(data)  # imports and starts what it needs, before the limits
    if atheris:
        _instrument(targets.GUIDES[arguments.target], atheris)
    child.limit()
    if arguments.only is not None:
        for path in arguments.only:
            child.try_one(path.read_bytes())
        child.tell()
    elif atheris:
        _guided(child, arguments.seconds, arguments.seed, atheris)
    else:
        _by_chance(child, arguments.seconds, arguments.inputs, arguments.seed)
    sys.exit(0)
