"""Draw the pictures of a run from its results.

    python -m bench.plot RESULTS_FOLDER

reads what bench.run wrote there and, if there is one, the kernels.json of bench.kernels, and writes
a PNG and an SVG of each picture beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from bench.core.command import on_results
from bench.core.errors import ResultsError
from bench.core.kernels import load_cases
from bench.core.results import KERNELS_FILE, RUN_FILE, Results, load
from bench.pages.plots import energy, peers, roofline, share, speedup, style, threads

#: Each draws a figure from results, or None without what it needs.
PICTURES = {
    "speedup": speedup, "threads": threads, "share": share, "energy": energy, "peers": peers,
}  # fmt: skip


def load_rows(folder: Path) -> Results:
    """The results in a folder; errors as of `load`, and ResultsError for some without rows."""
    results = load(folder)
    if not results.rows:
        raise ResultsError(f"{folder}: no rows, nothing was measured")
    return results


def figures(folder: Path, results: Results) -> Iterator[tuple[str, Figure | str]]:
    """Name and figure of each picture, or why it cannot be drawn; in the style that is applied."""
    for name, picture in PICTURES.items():
        yield name, picture.draw(results) or f"no {picture.NEEDS}"
    if (folder / KERNELS_FILE).exists():
        cases = load_cases(folder / KERNELS_FILE)
        try:
            yield "roofline", roofline.figure_of(cases)
        except ResultsError as error:
            yield "roofline", str(error)


def draw(folder: Path, note: Callable[[str], object] = lambda line: None) -> list[Path]:
    """Draw everything that the results in a folder have data for; return the pictures' paths.

    note: called with a line for each picture that was not drawn; an older one is removed. Raises
    ResultsError for results that cannot be drawn, OSError for files.
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


main = partial(
    on_results, "bench.plot", "Draw the pictures of a run from its results.", RUN_FILE,
    partial(draw, note=print),
)  # fmt: skip
