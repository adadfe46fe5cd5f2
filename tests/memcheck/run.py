"""A part of `tests.memcheck.child` under valgrind, and which of valgrind's errors are ours.

The interpreter, the loader and OpenBLAS have some of their own. An error is counted where its
innermost frame is compiled code that no file holds, that is a kernel's, or NumPy's: there what
kernels have computed is compared, and so depended on.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from collections import Counter
from pathlib import Path
from typing import Any

from tests.helpers import processes

#: Blocks lie so far apart, at least, that no vector reaches from one into the next.
RED_ZONE = 256
#: Functions that valgrind, or the C library, has for what calls them.
_COPIES = ("mem", "__mem", "bcmp")


@dataclasses.dataclass(frozen=True)
class Found:
    """What a part did: the kernels that it used, and valgrind's errors, "kind: where" with how
    often each."""

    kernels: frozenset[str]
    errors: Counter[str]


def lacking() -> str:
    """Why this cannot run, in words; empty if it can."""
    if sys.platform != "linux":
        return "valgrind and its libc are Linux's here"
    return "" if shutil.which("valgrind") else "valgrind is not installed"


def check(part: str, tier: str, timeout: float = 3600) -> Found:
    """Run a part, first without valgrind, which compiles, and then with it.

    Raises RuntimeError, with what the process said, if it failed by itself: a wrong result.
    """
    # No memory of Python's own, in which no block has an end. Of BLAS no threads.
    settings: dict[str, Any] = {
        **processes.SETTINGS[tier], "PYTHONMALLOC": "malloc", "OPENBLAS_NUM_THREADS": "1",
        "TERNOPS_TUNING": "off",
    }  # fmt: skip
    program = ["-m", "tests.memcheck.child", part]
    first = processes.python(*program, "--compile", timeout=timeout, **settings)
    if first.returncode:
        raise RuntimeError(f"{part} without valgrind: {first.stderr}")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "errors.xml")
        done = subprocess.run(
            [
                "valgrind", "--quiet", "--tool=memcheck", "--leak-check=no", "--error-limit=no",
                "--fair-sched=try", f"--redzone-size={RED_ZONE}", "--xml=yes",
                # A vector that reaches over an end is an error too, aligned or not.
                "--partial-loads-ok=no",
                f"--xml-file={report}", sys.executable, *program,
            ],
            env=processes.environment(**settings), cwd=processes.ROOT, timeout=timeout,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{part} under valgrind: {done.returncode}\n{done.stderr}")
        return Found(frozenset(json.loads(done.stdout)["kernels"]), errors(report.read_text()))


def errors(report: str) -> Counter[str]:
    """Those of a report of valgrind's, as XML, that are ours."""
    root = xml.fromstring(report)
    counts = {each.findtext("unique"): int(each.findtext("count", "1"))
              for each in root.iterfind("errorcounts/pair")}  # fmt: skip
    found: Counter[str] = Counter()
    for error in root.iterfind("error"):
        if error.findtext("kind", "").startswith("Leak"):  # which XML always has
            continue
        frames = error.findall("stack/frame")
        inner = next((each for each in frames if not _copies(each)), None)
        if inner is None:
            continue
        place = inner.findtext("obj", "")
        if not place or "_multiarray_umath" in place:
            where = inner.findtext("fn") or "a kernel"
            text = error.findtext("what") or error.findtext("xwhat/text") or ""
            found[f"{error.findtext('kind')}: {text}, in {where}"] += counts.get(
                error.findtext("unique"), 1
            )
    return found


def _copies(frame: xml.Element) -> bool:
    """Whether a frame is one of memcpy and its like."""
    return frame.findtext("fn", "").startswith(_COPIES)
