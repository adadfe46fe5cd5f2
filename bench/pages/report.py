"""Write a run's results as one HTML file that needs nothing else.

    python -m bench.report RESULTS_FOLDER

reads what bench.run wrote there and writes report.html beside it: pictures, tables that a click on
a heading sorts, and how it was all made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from bench.core.command import on_results
from bench.core.results import (
    CYCLED,
    ENGINES,
    KINDS,
    MAX_SPREAD,
    MEASURED,
    MODELLED,
    RUN_FILE,
    Results,
    plural,
)
from bench.pages import page, plot, run_tables
from bench.pages.plots import style
from bench.published import paper

NAME = "report.html"
_TEMPLATE = "report.html.jinja"
_CAPTIONS = {
    "speedup": "Speed-up over fp16 by size",
    "threads": "Tokens a second by number of threads",
    "share": "Share of the limit by size and engine",
    "energy": "Joules a token by size",
    "peers": "Tokens a second of every engine",
    "roofline": "Kernels beside the limits of the machine",
}
#: Of run.json: how it is called in the page; what is not named here is not shown.
_FACTS = {
    "cpu": "CPU", "tier": "tier", "arch": "architecture", "memory": "memory",
    "load": "load before the run", "ternops": "ternops", "commit": "commit",
    "versions": "versions", "command": "command",
}  # fmt: skip
_MEANINGS = {
    MEASURED: "timed whole",
    CYCLED: "timed with fewer distinct layers than the model has, used in turn",
    MODELLED: "computed from limits measured in the same run, not timed",
}


def write(folder: Path) -> Path:
    """Write folder/report.html; ResultsError or OSError if that cannot be."""
    results = plot.load_rows(folder)
    return page.write(folder / NAME, _TEMPLATE, _content(folder, results))


def _content(folder: Path, results: Results) -> dict[str, Any]:
    """What the template shows."""
    kinds = [row.kind for row in results.rows]
    pictures, missing = _pictures(folder, results)
    left_out = results.about.get("left_out")
    return {
        "machine": style.machine(results),
        "facts": [(words, _fact(results, name)) for name, words in _FACTS.items()
                  if results.about.get(name) not in (None, "")],
        "best": list(_best(results)),
        "kinds": [(kind, _MEANINGS[kind], kinds.count(kind)) for kind in KINDS if kind in kinds],
        "most_spread": MAX_SPREAD,
        "paper": f"{paper.SOURCE}, on {cpu}" if (cpu := paper.CPUS.get(results.arch)) else "",
        "pictures": pictures, "missing": missing, "tables": run_tables.all_of(results),
        "left_out": [str(line) for line in left_out] if isinstance(left_out, list) else [],
    }  # fmt: skip


def _fact(results: Results, name: str) -> str:
    value = results.about[name]
    if name == "memory" and isinstance(value, int | float):
        return f"{value / 2**30:.1f} GiB"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _pictures(folder: Path, results: Results) -> tuple[list[tuple[str, str, Markup]], list[str]]:
    """Name, caption and SVG of each picture, and a line for each that is missing."""
    found, missing = [], []
    with style.applied():
        for name, figure in plot.figures(folder, results):
            if isinstance(figure, Figure):
                found.append((name, _CAPTIONS[name], _inline(name, style.svg(figure))))
            else:
                missing.append(f"{_CAPTIONS[name]}: {figure}")
    return found, missing


def _inline(name: str, svg: str) -> Markup:
    """An SVG document as an element of the page, with ids of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    label = f'<svg role="img" aria-label="{_CAPTIONS[name]}" '
    # Matplotlib has escaped the words in it.
    return Markup(svg.replace("<svg ", label, 1))


def _best(results: Results) -> Iterator[str]:
    """A sentence on each encoding: its speed-ups where both sides were measured."""
    rows = style.decoding(results)
    for engine in [each for each in results.engines if each in ENGINES]:
        found = {
            size: row.over(base).median
            for (size, name), row in rows.items()
            if name == engine and (base := results.base_of(row)) is not None
            and row.kind == base.kind == MEASURED
        }  # fmt: skip
        if found:
            low, high = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
            words = f"{found[low]:.2f} (at {low}) to {found[high]:.2f} (at {high})"
            words = f"{words} times as fast as fp16"
            if low == high:
                words = f"{found[high]:.2f} times as fast as fp16 at {high}"
            yield f"{engine} decodes {words}, with {plural(results.threads[-1], 'thread')}"


main = partial(
    on_results, "bench.report", "Write a run's results as one HTML file.", RUN_FILE,
    lambda folder: [write(folder)],
)  # fmt: skip
