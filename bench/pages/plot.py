"""Draw the pictures of a run from its results.

    python -m bench.plot RESULTS_FOLDER

reads what bench.run wrote there and, if there is one, the kernels.json of bench.kernels, and writes
a PNG and an SVG of each picture beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from bench.core.command import on_results
from bench.core.errors import ResultsError
from bench.core.kernels import load_cases
from bench.core.results import ABOUT, KERNELS, Results, load
from bench.pages.plots import energy, peers, roofline, share, speedup, style, threads

#: Name -> what draws it, and what the results need for it.
PICTURES: dict[str, tuple[Callable[[Results], Figure | None], str]] = {
    "speedup": (speedup.draw, speedup.NEEDS),
    "threads": (threads.draw, threads.NEEDS),
    "share": (share.draw, share.NEEDS),
    "energy": (energy.draw, energy.NEEDS),
    "peers": (peers.draw, peers.NEEDS),
}
_ROOFLINE = "roofline"


def load_rows(folder: Path) -> Results:
    """The results in a folder; errors as of `load`, and ResultsError for some without rows."""
    results = load(folder)
    if not results.rows:
        raise ResultsError(f"{folder}: no rows, nothing was measured")
    return results


def figures(folder: Path, results: Results) -> Iterator[tuple[str, Figure | str]]:
    """Name and figure of each picture, or why there is none; in the style that is applied."""
    for name, (draw_one, needs) in PICTURES.items():
        yield name, draw_one(results) or f"no {needs}"
    kernels = folder / KERNELS
    if kernels.exists():
        yield _ROOFLINE, _roofline(kernels)


def _roofline(path: Path) -> Figure | str:
    """Of the kernels in a file, or why there is none."""
    try:
        cases = load_cases(path)
    except ResultsError as error:
        raise ResultsError(f"{path}: {error}") from error
    try:
        return roofline.figure_of(cases)
    except ResultsError as error:
        return str(error)


def draw(folder: Path, note: Callable[[str], object] = lambda line: None) -> list[Path]:
    """Draw everything that the results in a folder have data for; return the pictures' paths.

    note: is told of each picture that was not drawn; an older one of that name is removed.
    Raises ResultsError for results that cannot be drawn, OSError for files that cannot be read or
    written.
    """
    results, paths = load_rows(folder), list[Path]()
    with style.applied():
        for name, figure in figures(folder, results):
            if isinstance(figure, Figure):
                paths += style.save(figure, folder, name)
            else:
                style.remove(folder, name)
                note(f"{name}: not drawn, {figure}")
    return paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 2 with one line on stderr if nothing could be drawn."""
    return on_results(
        "bench.plot", "Draw the pictures of a run from its results.", ABOUT, arguments,
        lambda folder: draw(folder, print),
    )  # fmt: skip
