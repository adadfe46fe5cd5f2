"""Write docs/COST_MODEL.md: how the cost model works, and how far it is off, row by row.

python -m bench.cost_model results/<cpu>
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from bench.core import cost
from bench.core.command import on_results
from bench.core.errors import ResultsError
from bench.core.results import ENGINES, parameters
from bench.pages import page
from bench.pages.plots import cost as plots
from bench.published import cost_fit, paper
from ternops.cost import arithmetic, profile, stt_ram
from ternops.cost.layouts import SIZES
from ternops.decoder.weights import random_ternary

_TARGET = Path("docs") / "COST_MODEL.md"
_MATRIX = (2048, 2520)  # whole blocks of every encoding


def write(folder: Path, target: Path = _TARGET) -> list[Path]:
    """Write the page and its pictures; ResultsError or OSError if that cannot be."""
    stored, found = cost.load(folder / cost.COST_FILE)
    # Small models first, 2B4T among them by its parameters, and fp16 before encodings.
    pairs = sorted(
        found, key=lambda pair: (parameters(pair.size), pair.threads, ENGINES.index(pair.engine))
    )
    if not pairs:
        raise ResultsError(f"{folder / cost.COST_FILE}: rows: none, nothing to show")
    machine = profile.parse(stored["profiles"][0], str(folder / cost.COST_FILE))
    pictures = plots.draw(folder, machine, pairs)
    values = dict(
        folder=folder.as_posix(), machine=machine, pairs=cost.table_of(pairs),
        here=cost.errors(pairs),
        aims=(cost.MAX_MEDIAN, cost.MAX_ERROR), pictures=Path("..") / folder,
        fits=[_fit(arch) for arch in cost_fit.MACHINES], fit=cost_fit, paper=paper,
        savings={arch: cost_fit.savings(arch) for arch in cost_fit.MACHINES},
        report={
            name: (each.joules, arithmetic.report_joules(
                each.decoder, 'ternary' if each.is_ternary else 'fp16'
            ))
            for name, each in paper.REPORT.items()
        }, saving=arithmetic.ternary_saving(),
        threads=[_threads(name) for name in paper.THREADS],
        threads_bytes=cost_fit.threads_bytes(), saturated=cost_fit.SATURATED,
        names={name: each.name for name, each in paper.THREADS.items()},
        roofline=(folder / "roofline.png").exists(), memory=stt_ram.load(),
        codes=_codes(), profiles=[profile.load(name) for name in profile.shipped()], sizes=SIZES,
    )  # fmt: skip
    return [page.write(target, "cost_model.md.jinja", values), *pictures]


def _fit(arch: str) -> dict[str, Any]:
    fit, dense, ternary = cost_fit.speeds(arch)
    _, _, bare = cost_fit.speeds(arch, with_rate=False)
    return {
        "cpu": paper.CPUS[arch], "encoding": cost_fit.MACHINES[arch][1], "fit": fit,
        "dense": dense, "ternary": ternary, "errors": cost_fit.errors(ternary),
        "bare": {row.size: row for row in bare}, "bare_errors": cost_fit.errors(bare),
    }  # fmt: skip


def _threads(name: str) -> dict[str, Any]:
    steps = cost_fit.steps(name)
    return {"name": paper.THREADS[name].name, "steps": steps, "off": cost_fit.off_by(steps)}


def _codes() -> list[dict[str, Any]]:
    """Each encoding's packed bytes of one random matrix in the memory, as they are and at best."""
    import numpy as np

    memory, found = stt_ram.load(), []
    for encoding, bits in stt_ram.CODE_BITS.items():
        matrix = random_ternary(*_MATRIX, encoding, np.random.default_rng(0))
        data = matrix._packed.bytes
        best = stt_ram.best_codes(memory, data, bits)
        weights = _MATRIX[0] * _MATRIX[1]
        found.append({
            "encoding": encoding, "bits": bits,
            "read": stt_ram.energy_of(memory, data) / weights,
            "write": stt_ram.energy_of(memory, data, "write") / weights,
            "best_read": best.read / weights, "best_write": best.write / weights,
            "patterns": best.patterns,
        })  # fmt: skip
    return found


main = partial(on_results, "bench.cost_model", __doc__ or "", cost.COST_FILE, write)
