"""Small models that several processes share out, told by words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ternops.decoder.weights import Weights
from tests.helpers.processes import ROOT, environment
from tests.helpers.small_models import mixed_weights, small_config, small_model

_BESIDE = os.path.join(os.path.dirname(sys.executable), "mpiexec")
#: That of the wheel, or the system's.
MPIEXEC = _BESIDE if os.path.exists(_BESIDE) else "mpiexec"
#: Seconds after which processes that wait for one another are taken to wait for ever.
_PATIENCE = 240


def weights_of(
    size: str = "hidden 200", layout: str = "llama", kind: str = "two_bit", group: int = 0,
    vocabulary: int = 300, config: Mapping[str, Any] | None = None, **_: Any,
) -> Weights:  # fmt: skip
    """Of a random model: kind "mixed" has every matrix of the next type."""
    chosen = small_config(size, layout, vocabulary=vocabulary, **(config or {}))
    if kind == "mixed":
        return mixed_weights(chosen)
    return small_model(chosen, kind, group=group).weights


def run_ranks(count: int, cases: Sequence[Mapping[str, Any]]) -> None:
    """Compare what so many processes decode with one alone; AssertionError if it differs."""
    arguments = ["-m", "tests.programs.ranks_exact", *map(json.dumps, cases)]
    done = mpiexec(count, arguments)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("exact ") == len(cases), done.stdout + done.stderr[-4000:]


def mpiexec(
    count: int,
    arguments: Sequence[str],
    seconds: float = _PATIENCE,
    stdin: str = "",
    **changes: str,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run Python in so many processes, each with one CPU's share of this machine."""
    return subprocess.run(
        [MPIEXEC, "-n", str(count), sys.executable, *arguments], cwd=ROOT, text=True,
        capture_output=True, input=stdin, timeout=seconds, env=environment(**changes), check=False,
    )  # fmt: skip
