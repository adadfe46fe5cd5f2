"""Which bits of a weight are worth most, at an equal number of bits in all?

    python -m bench.scaling

trains float models of four sizes on the standard library's bytes (minutes; they are kept in
.scaling, which git ignores), rounds their linear layers to every data type and group, and evaluates
each on files that none has seen: total bits against perplexity, as in "The case for 4-bit
precision: k-bit Inference Scaling Laws" (Dettmers, Zettlemoyer, arXiv 2212.09720). Weights are
rounded in NumPy (ternops.quantizers) and multiplied as floats: only the rounding counts. The
embedding, which is the head as well, and the norms stay float16, and their bits count, too.

Writes scaling.json and a picture to results/scaling; --draw draws that again. --sizes leaves some
out: docs/ENCODINGS.md has the perplexities of one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.core import command
from bench.core.envelope import envelope, load_json, save_json
from bench.core.errors import ResultsError
from bench.core.results import SCALING_FILE, SCALING_FORMAT
from bench.core.table import Cell, number, table, text
from bench.pages.plots import scaling, style
from bench.suites.scaling import models, rounding

_BUDGETS = 24  # numbers of total bits at which the best is looked up


def measure(sizes: Sequence[models.Size], cache: Path, windows: int, advance: Any) -> list[Any]:
    """A row for each size, data type and group."""
    found = []
    for size in sizes:
        model = models.Model(models.folder_of(size, cache))
        tokens = models.held_out(cache, size, windows)
        count = sum(each.size for each in model.linear.values())
        fixed = rounding.FLOAT_BITS * model.others

        def row(
            name: str, group: Any, bits: float, weights: Any,
            size: Any = size, model: Any = model, tokens: Any = tokens,
            count: int = count, fixed: float = fixed,
        ) -> dict[str, Any]:  # fmt: skip
            return {
                "size": size.name, "parameters": count + model.others, "name": name,
                "group": group, "bits": bits + fixed, "bits a weight": bits / count,
                "perplexity": model.perplexity(tokens, weights.__getitem__),
            }  # fmt: skip

        found.append(row(rounding.FLOAT, None, rounding.FLOAT_BITS * count, model.linear))
        for kind in rounding.DATA_TYPES.values():
            for group in kind.groups:
                parts = {
                    name: rounding.rounded(each, kind, group) for name, each in model.linear.items()
                }
                bits = sum(each.bits for each in parts.values())
                weights = {name: each.weight for name, each in parts.items()}
                found.append(row(kind.name, group, bits, weights))
            advance(f"{size.name} {kind.name}")
    return found


def named(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, with the group in the name."""
    return [
        {**row, "name": f"{row['name']}, {_group(row['group'])}" if row["group"] else row["name"]}
        for row in rows
    ]


def _group(group: Any) -> str:
    return "a scale a row" if group == rounding.ROW else f"group {group}"


def best(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is best at each of some numbers of total bits that every data type and group reaches;
    nothing where sizes are too few for that."""
    lines: dict[str, list[float]] = {}
    for row in named(rows):
        lines.setdefault(row["name"], []).append(row["bits"])
    ends = max(map(min, lines.values())), min(map(max, lines.values()))
    if ends[0] > ends[1]:
        return []
    budgets = np.geomspace(*ends, _BUDGETS).tolist()
    names = rounding.best_by_budget(named(rows), budgets)
    return [{"bits": each, "name": name} for each, name in zip(budgets, names, strict=True)]


def _table(found: dict[str, Any]) -> Any:
    sizes = list(dict.fromkeys(row["size"] for row in found["rows"]))
    by_name: dict[str, dict[str, Any]] = {}
    for row in named(found["rows"]):
        by_name.setdefault(row["name"], {})[row["size"]] = row
    columns: dict[str, Any] = {"weights": lambda each: text(each[0])}
    columns["bits a weight"] = lambda each: number(each[1][sizes[-1]]["bits a weight"], "{:.2f}")

    def column(size: str) -> Any:
        def cell(each: Any) -> Cell:
            return number(each[1][size]["perplexity"], "{:.3f}")

        return cell

    columns |= {size: column(size) for size in sizes}
    title = "Perplexity of a byte by width x layers"
    return table("scaling", title, columns, list(by_name.items()), [], whole=True)


def draw(found: dict[str, Any], folder: Path) -> list[Path]:
    with style.applied():
        return style.save(scaling.figure(found), folder, "scaling")


def main(argv: list[str] | None = None) -> int:
    """Train or load, round, evaluate, print, write and draw; 2 for bad options or results."""
    parser = command.make_parser("bench.scaling", __doc__)
    parser.add_argument("--models", type=Path, default=models.ROOT / ".scaling", metavar="DIR",
                        help="where the models are kept")  # fmt: skip
    names = [each.name for each in models.SIZES]
    parser.add_argument("--sizes", nargs="+", choices=names, default=names, metavar="SIZE",
                        help=f"default: {' '.join(names)}")  # fmt: skip
    words = "of 512 bytes that are predicted"
    parser.add_argument("--windows", type=int, default=32, metavar="N", help=words)
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of torch")
    parser.add_argument("--output", type=Path, default=models.ROOT / "results" / "scaling",
                        metavar="DIR", help="folder to write")  # fmt: skip
    parser.add_argument("--draw", action="store_true", help="draw the results that are there")
    arguments = parser.parse_args(argv)
    if min(arguments.windows, arguments.threads) < 1:
        parser.error("--windows, --threads: expected 1 or more")
    console = command.make_console(120)
    path = arguments.output / SCALING_FILE
    try:
        if not arguments.draw:
            found = _run(arguments, console)
            arguments.output.mkdir(parents=True, exist_ok=True)
            save_json(path, found)
        found = load_json(path, "bench.scaling", SCALING_FORMAT)
        pictures = draw(found, arguments.output)
    except (ResultsError, OSError, ImportError) as error:
        print(f"bench.scaling: {error}", file=sys.stderr)
        return 2
    console.print(_table(found))
    console.print(f"wrote {', '.join(map(str, [path, *pictures]))}", highlight=False)
    return 0


def _run(arguments: Any, console: Any) -> dict[str, Any]:
    sizes = [each for each in models.SIZES if each.name in arguments.sizes]
    models.train(sizes, arguments.models, arguments.threads)
    with command.progress(console) as start:
        advance = start("rounding", len(sizes) * len(rounding.DATA_TYPES))
        rows = measure(sizes, arguments.models, arguments.windows, advance)
    return {
        **envelope(SCALING_FORMAT), "steps": models.STEPS, "tokens a step": models.TOKENS,
        "windows": arguments.windows, "rows": rows, "best": best(rows),
    }  # fmt: skip
