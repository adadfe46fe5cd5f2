"""Instructions a weight of the kernels on ARM cores, counted while an emulator executes them.

qemu logs a block of instructions when it translates it, and each time that it executes one. It is
run twice: the first time tells where the kernels' code is, the second logs what happens around it.
From a kernel's first instruction to its return, all that is executed counts.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bench.arm.emulator import Emulator
from bench.arm.stored import Count, Part
from bench.core.errors import ResultsError

#: Of qemu's models.
CPUS = ("cortex-a72", "neoverse-n1", "neoverse-v1")
_AROUND = 0x8000  # bytes of code before and after a kernel's entry that are logged
_TURNS = 2  # a first one may have compiled, which leaves the code elsewhere
# `bl` and `blr`, `ret`: bits that tell them, and what they are.
_CALLS = ((0xFC000000, 0x94000000), (0xFFFFFC1F, 0xD63F0000))
_RETURN = (0xFFFFFC1F, 0xD65F0000)


class Block(NamedTuple):
    """Instructions that are executed together, and the last of them as a word."""

    instructions: int
    end: int
    last: int

    @property
    def is_call(self) -> bool:
        return any(self.last & mask == word for mask, word in _CALLS)

    @property
    def is_return(self) -> bool:
        return self.last & _RETURN[0] == _RETURN[1]


def measure(folder: Path) -> Part:
    """The counts on every CPU.

    Raises Unavailable without an emulator here, ResultsError for what cannot be counted.
    """
    emulator = Emulator(folder)
    versions: dict[str, str] = {}
    rows: list[Count] = []
    for cpu in CPUS:
        about, found = _counted(emulator, cpu)
        versions = {"qemu": emulator.version, **about["versions"]}
        for kernel, tokens in zip(about["kernels"], about["tokens"], strict=True):
            shape = (about["rows"], about["columns"], tokens)
            rows.append(Count(cpu, about["tier"], kernel, *shape, found[kernel]))
    return Part(versions, rows)


def _counted(emulator: Emulator, cpu: str) -> tuple[dict[str, Any], dict[str, int]]:
    """What runs on a CPU, and kernel -> instructions."""
    about = _run(emulator, cpu)
    with tempfile.TemporaryDirectory() as temporary:
        log = Path(temporary) / "log"
        for _ in range(_TURNS):
            expected = about
            ranges = ",".join(f"{at - _AROUND:#x}+{2 * _AROUND:#x}" for at in about["addresses"])
            about = _run(
                emulator, cpu, "-d", "exec,nochain,in_asm", "-D", str(log), "-dfilter", ranges
            )
            if about == expected:
                break
        with log.open(encoding="utf-8") as lines:
            return about, counts(lines, entries(expected), entries(about))


def entries(about: dict[str, Any]) -> dict[int, str]:
    """Address -> kernel."""
    return dict(zip(about["addresses"], about["kernels"], strict=True))


def _run(emulator: Emulator, cpu: str, *options: str) -> dict[str, Any]:
    """What the products say of themselves, with addresses as they are in every such process."""
    process = emulator.run(
        cpu, "-m", "bench.arm.counted", wrapper=("setarch", "-R"), options=options
    )
    output, errors = process.communicate()
    if process.returncode:
        words = errors.strip().splitlines() or [f"exit code {process.returncode}"]
        raise ResultsError(f"{cpu}: {words[-1]}")
    found: dict[str, Any] = json.loads(output)
    return found


def counts(
    log: Iterable[str], expected: Mapping[int, str], found: Mapping[int, str]
) -> dict[str, int]:
    """Kernel -> instructions from its entry to its return, by the lines of qemu's log.

    expected: address -> kernel, as the log was asked for; found: as the logged process had them.
    Raises ResultsError unless both are the same and each kernel is entered once, and returns.
    """
    if expected != found:
        raise ResultsError(f"kernels at {_at(found)}, expected them at {_at(expected)} as before")
    totals: dict[str, int] = {}
    kernel, before = "", None
    returns: list[int] = []  # of the calls that the kernel is in
    for at, block in _executed(log):
        if kernel and before:
            if before.is_call:
                if at == before.end:
                    raise ResultsError(f"{kernel}: calls what the log does not have, at {at:#x}")
                returns.append(before.end)
            elif before.is_return and returns:
                if at != returns.pop():
                    raise ResultsError(f"{kernel}: returns to {at:#x}, where it was not called")
            elif before.is_return:
                kernel = ""
        if at in expected:
            if kernel or expected[at] in totals:
                raise ResultsError(f"{expected[at]}: entered a second time, expected once")
            kernel = expected[at]
        if kernel:
            totals[kernel] = totals.get(kernel, 0) + block.instructions
        before = block
    if kernel and not (before and before.is_return and not returns):
        raise ResultsError(f"{kernel}: does not return")
    if missing := [name for name in expected.values() if name not in totals]:
        raise ResultsError(f"{missing[0]}: never entered, expected once")
    return totals


def _at(entries: Mapping[int, str]) -> str:
    return ", ".join(f"{at:#x}" for at in entries)


def _executed(log: Iterable[str]) -> Iterator[tuple[int, Block]]:
    """The blocks of the first thread in the order of their execution, with their addresses."""
    blocks: dict[int, Block] = {}
    first: int | None = None  # address of the block that is being translated
    last: tuple[int, Block] | None = None  # the one that may have been executed
    for line in log:
        if line.startswith("IN:"):
            first = None
        elif line.startswith("0x"):
            address, word = line.split(maxsplit=2)[:2]
            at = int(address[:-1], 16)
            first = at if first is None else first
            size = (at - first) // 4 + 1
            blocks[first] = Block(size, at + 4, int(word, 16))
        elif line.startswith("Stopped execution"):
            last = None  # before its first instruction; another line follows when it goes on
        elif line.startswith("Trace 0:"):
            if last:
                yield last
            at = int(line.split("/")[1], 16)
            if at not in blocks:
                raise ResultsError(f"qemu's log: no instructions of the block at {at:#x}")
            last = at, blocks[at]
    if last:
        yield last
