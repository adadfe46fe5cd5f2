"""What tests need of the insides of ternops: a rename in the product is followed here alone.

No other file of tests/ names what is private in the package (`tests/library/test_layers.py`), and
none but this one forces a kernel. Everything that is patched is patched by a context manager, or
by the caller's monkeypatch; programs, whose process ends with them, call `__enter__` of one.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest

from ternops import memory as memory_module
from ternops import scratch, team, threads
from ternops.checksum import of_content
from ternops.contention import Contention
from ternops.decoder import chat
from ternops.decoder.sampler import Sampler
from ternops.decoder.states import States
from ternops.isa.tier import GemmTile
from ternops.kernels import call, plan, tuning
from ternops.simd import Job, kept

Array = npt.NDArray[Any]

# Kernels and plans


def forced_kernel(kind: str) -> Any:
    """While this lasts, new matrices use the kernels of a shape class for every product.

    What `with` gives is a Mock: `called` tells whether a product has asked for a shape class.
    """
    return mock.patch.object(call, "kind_of", return_value=kind)


def forced_tile(tile: Any) -> Any:
    """While this lasts, new matrices use the kernel of a tile."""
    shape_class = "many" if isinstance(tile, GemmTile) else "few"

    def made(
        name: str, columns: int, kind: str, group: int = 0, levels: tuple[int, ...] = ()
    ) -> Any:
        assert group == 0
        return plan.make_plan(name, columns, shape_class, tile)

    return mock.patch.object(call, "make_plan", made)


def candidates_in_time(wanted: Any, seconds: float) -> Any:
    """What of tuning's candidates can be measured when there is this time to compile them."""
    from ternops.tuning import search

    return search._built(wanted, search._Clock(seconds, lambda what, part: None), 1.0)


def eager_threads() -> Any:
    """While this lasts, all threads asked for are used, however small the product is."""
    return mock.patch.object(tuning, "BYTES_A_THREAD", 1)


@contextlib.contextmanager
def exact_scratch(allocate: Callable[..., Array]) -> Iterator[None]:
    """While this lasts, each product has scratch memory of its own, not a byte too long.

    allocate: called as `ternops.memory.aligned_empty` is.
    """

    def reserve(self: Any, size: int) -> int:
        self._resize(size)
        return int(self.room)

    with (
        mock.patch.object(scratch, "aligned_empty", allocate),
        mock.patch.object(scratch.Scratch, "reserve", reserve),
        mock.patch.object(scratch, "_KEPT_BYTES", -1),
    ):
        yield


@contextlib.contextmanager
def exact_memory(allocate: Callable[..., Array]) -> Iterator[None]:
    """While this lasts, the package's arrays are each by themselves, not a byte too long.

    allocate: called as `ternops.memory.aligned_empty` is.
    """

    def aligned(make: Any, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        array = allocate(shape, dtype)
        if make is np.zeros:
            array[...] = 0
        return array

    def empty(self: Any, shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        return allocate(shape, dtype)

    with (
        mock.patch.object(memory_module, "_aligned", aligned),
        mock.patch.object(memory_module, "_MAPPED", sys.maxsize),
        mock.patch.object(memory_module.Arena, "empty", empty),
    ):
        yield


def count_compilations() -> list[str]:
    """The names of the jobs that this process compiles from now on, not read from the cache."""
    compiled, original = list[str](), Job.compile

    def counting(self: Any) -> Any:
        compiled.append(self.name)
        return original(self)

    Job.compile = counting  # type: ignore[method-assign]
    return compiled


def count_lookups() -> list[str]:
    """The keys of the jobs that this process looks for from now on, compiled or not."""
    asked, original = list[str](), kept.find

    def finding(place: Any) -> Any:
        asked.append(place.key)
        return original(place)

    kept.find = finding
    return asked


def minimum_of_bytes() -> Any:
    """The vocabulary's unsigned minimum, which base3 is unpacked with; for compiled code."""
    from ternops.encodings.unpack import base3

    return base3._minimum


def base3_looks_up() -> bool:
    """Whether base3 is unpacked by the tier's look-up among 128 bytes."""
    from ternops.encodings.unpack import base3

    return bool(base3._LOOKS_UP)


# Matrices


def packed(matrix: Any) -> Any:
    """A matrix's record: `bytes`, `scale`, `operand`."""
    return matrix._packed


def blocks_of(stack: Any) -> Any:
    """The packed blocks of a StackMatrix."""
    return stack._blocks


def forget_kernels(matrix: Any) -> None:
    """Let a matrix choose its kernels anew."""
    matrix._packed.calls.clear()


def is_transposed(matrix: Any) -> bool:
    """Whether a matrix is used by its columns."""
    return bool(matrix._transposed)


def file_checksum(metadata: dict[str, str], tensors: Any) -> str:
    """What a saved matrix has as `crc32`."""
    return of_content(metadata, tensors)


# Threads

#: The code that a trace function waits for.
RUN_TOGETHER = team.Team._run_together.__code__
START_WORKER = team.Team._start_worker.__code__


def workers() -> list[Any]:
    """The Python threads of the process's team, which is a copy: `stop` empties its own list."""
    return list(team.TEAM._threads)


def all_parked() -> bool:
    """Whether every worker of the team sleeps."""
    return all(state == team._PARKED for state in team.TEAM._states[1 : len(workers()) + 1])


def waited_for(crew: team.Team, job: Any, record: Array, count: int) -> int:
    """Run a job on exactly `count` threads: the nanoseconds for which threads waited in vain."""
    return crew._run_together(job.address, record.ctypes.data, count)


def watch_launches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of threads that jobs are started on, however busy the machine is."""
    seen: list[int] = []
    monkeypatch.setattr(team.TEAM, "_contention", Contention())
    monkeypatch.setattr(Contention, "begin", lambda self, threads: None)
    launch = team._launch.call

    def counting(address: int, job: int, record: int, count: int) -> int:
        waited = launch(address, job, record, count)
        if waited >= 0:  # no worker was parked
            seen.append(count)
        return int(waited)

    monkeypatch.setattr(team._launch, "call", counting)
    return seen


#: The CPUs that a control group grants: `quota(groups, own)` reads its files.
quota = threads._quota


def set_quota(monkeypatch: pytest.MonkeyPatch, cpus: float | None) -> None:
    """Let the control group of this process grant this number of CPUs."""
    monkeypatch.setattr(threads, "_quota", lambda: cpus)


def count_cpus_anew(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """A function that counts the CPUs of this process as the first call in a process does."""
    usable = threads._Usable()
    monkeypatch.setattr(threads, "_usable", usable)
    return usable.count


def window(threads: int) -> Any:
    """What contention knows of a number of threads."""
    from ternops import contention

    return contention._Window(threads)


def window_of(contention: Contention) -> Any:
    """The window that is being filled."""
    return contention._window


# Files and the cache of compiled code


def cache_digest() -> str:
    """The name of the folder that this process's compiled code is kept in."""
    from ternops.simd import folder

    return folder._digest()


def look_again() -> None:
    """Let the sources be read, and the cache's folder be chosen, anew."""
    from ternops.simd import folder

    folder.sources_digest.cache_clear()
    folder.cache_folder.cache_clear()


def watch_syncs(monkeypatch: pytest.MonkeyPatch, note: Callable[[Any], None]) -> None:
    """Call `note(file)` instead of waiting until the disk has a file."""
    from ternops import files

    monkeypatch.setattr(files, "_sync", note)


def read_in_blocks(monkeypatch: pytest.MonkeyPatch, elements: int) -> None:
    """Let tensors be read in blocks of this number of elements."""
    from ternops.decoder.formats import tensors

    monkeypatch.setattr(tensors, "_BLOCK", elements)


def replace_tokenizer(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Let `convert` write these bytes as the tokenizer of any model."""
    from ternops.decoder.formats import convert

    monkeypatch.setattr(convert, "tokenizer_of", lambda checkpoint, say: data)


# The decoder


def lone_workspace(session: Any) -> Any:
    """What a session computes a single token in."""
    return session._alone


def replace_jobs(
    session: Any, tokens: int, multiply: int, prepare: int, attend: int, counters: Array
) -> None:
    """Let a session's passes of `tokens` tokens run these jobs, by address, instead of kernels.

    Products find the counters in place of their scratch memory, attention finds `counters[3:]` in
    place of its scores.
    """
    from ternops.kernels.operands import OPERANDS

    workspace = session._pool(tokens)
    workspace._use_head(0)
    linear = workspace._own._memory[: OPERANDS.itemsize].data
    for memory in (linear, *(memory for memory, _ in workspace._own.heads)):
        record = np.frombuffer(memory, OPERANDS)
        record["multiply"], record["prepare"] = multiply, prepare
        record["scratch"] = counters.ctypes.data
    for name, address in (("multiply", multiply), ("prepare", prepare)):
        workspace._types.table[name] = address
    workspace._record["attend"] = attend
    workspace._record["own_scores"] = counters.ctypes.data + 24


# The cost model and the commands


def sum_read(reader: Any, probe: Any, threads: int, times: int = 1) -> int:
    """The sum, modulo 256, that reading a buffer of ones leaves behind."""
    reader._sink[:] = 0
    reader.run(probe, threads, times)
    return int(reader._sink.sum()) % 256


@contextlib.contextmanager
def quick_calibration() -> Iterator[None]:
    """While this lasts, calibrating takes one short round over little memory."""
    from ternops.cost import calibrate, fixed, measured, mountain, rounds

    with (
        mock.patch.object(calibrate, "ROUNDS", 1),
        mock.patch.object(measured, "ROUNDS", 1),
        mock.patch.object(measured, "_SETTLING", 0.0),
        mock.patch.object(calibrate, "memory_bytes", return_value=1 << 26),
        mock.patch.object(fixed, "_TOKENS", 1),
        mock.patch.object(mountain, "_WARM", 1),
        mock.patch.object(mountain, "_GAPS", (0.001, 0.002)),
        mock.patch.object(rounds, "_TURN", 1e-4),
    ):
        yield


def clock() -> tuple[float, str]:
    """The CPU's clock in hertz, and what says so."""
    from ternops.cost import calibrate

    return calibrate._clock()


def bar_labels(sizes: tuple[str, ...]) -> list[str]:
    """The labels of predictions of models of these sizes, in one picture."""
    from ternops.commands import predict

    rows = [predict._Row(size, "m", "base3", 1, None, "") for size in sizes]
    return [predict._label(row, rows) for row in rows]


def limit_tokens_of_a_pass(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    """Let `perplexity` read this number of tokens at once."""
    from ternops.decoder import session

    monkeypatch.setattr(session, "LOGITS_AT_ONCE", tokens)


def replace_figures(monkeypatch: pytest.MonkeyPatch, figures: Callable[..., Any]) -> None:
    """Let `perplexity --table` ask this function and start no process."""
    from ternops.commands import perplexity

    monkeypatch.setattr(perplexity, "_figures", figures)


def memory_of(states: States) -> Array:
    """The states of a sequence, as bytes."""
    return states._now


# Sampling


def with_random(sampler: Sampler, number: float) -> None:
    """Let each draw be by this number."""
    sampler._random = mock.Mock(random=lambda: number)


def choose(sampler: Sampler, token: int, logits: Array) -> None:
    """Let a sampler have chosen a token."""
    with mock.patch.object(sampler, "_draw", return_value=token):
        assert sampler(logits) == token


def template_process() -> Any:
    """The process that renders chat templates, as `subprocess.Popen`."""
    return chat._PROCESS[0]._running


def adjusted(sampler: Sampler, logits: Array) -> Array:
    """The logits with biases and penalties."""
    return sampler._adjust(logits)


def probabilities(sampler: Sampler, logits: Array) -> Array:
    """float64, of each token, of what would be drawn next."""
    tokens, weights = sampler._weights(sampler._adjust(logits))
    found = np.zeros(len(logits))
    found[slice(None) if tokens is None else tokens] = weights / weights.sum()
    return found
