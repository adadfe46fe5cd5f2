"""Say which commit and which machine the figures in a folder of results are from.

    python -m bench.provenance results/<cpu>

prints one line, as it stands below a table of these figures.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pyperf

from bench.core import cost
from bench.core.command import on_results
from bench.core.envelope import ENVELOPE
from bench.core.errors import ResultsError
from bench.core.pyperf_files import envelope_of
from bench.core.results import DECODER_FILE, KERNELS_FILE, RUN_FILE

#: Files and what writes them; decode.json says what run.json does.
_FILES = {
    RUN_FILE: "bench.run", KERNELS_FILE: "bench.kernels", DECODER_FILE: "bench.decode",
    cost.COST_FILE: "bench.cost",
}  # fmt: skip
_UNKNOWN = "a commit that was not recorded"


def line(folder: Path) -> str:
    """Machines, tiers and the commit of each file of results; ResultsError if there are none."""
    found = {name: _envelope(folder / name) for name in _FILES if (folder / name).exists()}
    if not found:
        raise ResultsError(f"{folder}: none of {', '.join(_FILES)}")
    machines = _unique(f"{each['cpu']}{_tier(found, each['cpu'])}" for each in found.values())
    commits: dict[str, list[str]] = {}
    for name, each in found.items():
        words = f"commit {each['commit']}" if each.get("commit") else _UNKNOWN
        commits.setdefault(words, []).append(_FILES[name])
    files = "; ".join(f"{', '.join(programs)}: {words}" for words, programs in commits.items())
    return f"Measured on {' and '.join(machines)}. {files}."


def _envelope(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
        if "benchmarks" in found:
            found = envelope_of(pyperf.BenchmarkSuite.load(str(path)))
        elif found.get("profiles"):  # older ones have no envelope
            found = {"cpu": found["profiles"][0]["name"], **found}
        known = {key: found[key] for key in ENVELOPE if found.get(key)}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ResultsError(f"{path}: not a file of results") from error
    return {"cpu": "an unnamed CPU", **known}


def _tier(found: dict[str, dict[str, Any]], cpu: str) -> str:
    tiers = _unique(each.get("tier") for each in found.values() if each["cpu"] == cpu)
    return f" (tier {', '.join(tiers)})" if tiers else ""


def _unique(words: Any) -> list[str]:
    return list(dict.fromkeys(filter(None, words)))


main = partial(
    on_results, "bench.provenance",
    "Say which commit and which machine the figures in a folder of results are from.",
    " or ".join(_FILES), lambda folder: [line(folder)],
)  # fmt: skip
