"""Write docs/SCALING.md: what several ranks that decode together are predicted to reach, and why.

    python -m bench.links
    python -m bench.ranks results/links

Predictions are of machines like the one in that folder's links.json, one rank each.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench.core.command import on_results
from bench.core.links import LINKS_FILE, Curve, MeasuredLink, load_links
from bench.core.results import plural
from bench.core.table import Cell, Table, number, table, text
from bench.pages import page
from bench.pages.plots import ranks as plots
from bench.pages.plots import style
from ternops.cost import predict
from ternops.cost.hardware import Hardware
from ternops.cost.known_links import shipped
from ternops.cost.layouts import SIZES, large
from ternops.cost.link import Link, doublings
from ternops.cost.measured_link import ELEMENTS
from ternops.cost.profile import load
from ternops.cost.ranks import WORTHWHILE, best_layout, predict_ranks, saturation
from ternops.decoder.config import Config
from ternops.ranks.split import Layout

_TARGET = Path("docs") / "SCALING.md"
ENCODING = "base3"
#: Of which predictions are shown, and links that machines have between them.
LAYOUTS: Mapping[str, Config] = {"7B": SIZES["7B"], "70B": SIZES["70B"], **large()}
LINKS = ("1GbE", "10GbE", "100GbE", "IB")
RANKS = tuple(2**power for power in range(10))
#: Sequences that are decoded together, where more than one are.
SEQUENCES = 64
_SHOWN, _DETAIL = 8, ("70B", "10GbE")  # ranks of the table of collectives; of the second picture
#: Whose watts are known, and an encoding whose rate it has.
_POWERED, _POWERED_ENCODING = "epyc-7v13", "two_bit"
_FLOAT = 4


def curve(size: str, hardware: Hardware, link: Link, sequences: int) -> Curve:
    """The fastest layouts of every number of ranks that can be."""
    found = []
    for count in RANKS:
        try:
            plan = best_layout(LAYOUTS[size], hardware, link, count, ENCODING, sequences=sequences)
        except ValueError:  # no memory for it, or more ranks than can share it out
            continue
        found.append(plan.prediction)
    return Curve(size, link, sequences, tuple(found))


def _powered(link: Link) -> tuple[Hardware, Table]:
    """A machine with watts, and what a token of one sequence takes of its ranks."""
    hardware = load(_POWERED)
    found = [
        best_layout(LAYOUTS[_DETAIL[0]], hardware, link, count, _POWERED_ENCODING).prediction
        for count in RANKS
    ]
    columns: dict[str, Callable[[Any], Cell]] = {
        "ranks": lambda each: number(each.layout.ranks, "{:d}"),
        "layout": lambda each: text(str(each.layout)),
        "tokens/s, at most": lambda each: number(each.tokens_per_second, "{:.3g}"),
        "J/token": lambda each: number(each.joules_per_token, "{:.3g}"),
        "GB a rank": lambda each: number(each.memory / 1e9, "{:.2f}"),
        "messages": lambda each: number(each.link_share, "{:.0%}"),
    }
    return hardware, table("powered", "Energy", columns, found)


def by_rows_s(config: Config, link: Link, ranks: int) -> float:
    """Seconds of a token's collectives where every matrix is shared out by rows, as here."""
    vectors = (config.heads * config.head_dim, config.hidden, config.ffn, config.hidden)
    return config.layers * sum(link.allgather_s(_FLOAT * each, ranks) for each in vectors)


def by_columns_s(config: Config, link: Link, ranks: int) -> float:
    """Seconds where the output's projection and down are shared out by columns.

    Of each the sums of all ranks are added up: by halving and doubling (Thakur, Rabenseifner and
    Gropp, section 4.5), before which the largest activation has to be agreed upon.
    """
    steps = doublings(ranks)
    agreed = steps * link.message_s(_FLOAT)
    moved = 2 * _FLOAT * config.hidden * (ranks - 1) / ranks / link.bytes_per_s
    return config.layers * 2 * (agreed + 2 * steps * link.latency_s + moved)


def write(folder: Path, target: Path = _TARGET) -> list[Path]:
    """Write the page and its pictures; ResultsError or OSError if that cannot be."""
    stored, hardware, measured = load_links(folder)
    links = shipped()
    curves = {
        sequences: [
            curve(size, hardware, links[name], sequences) for name in LINKS for size in LAYOUTS
        ]
        for sequences in (1, SEQUENCES)
    }
    detail = next(each for each in curves[1] if (each.size, each.link.name) == _DETAIL)
    with style.applied():
        pictures = [
            *style.save(plots.speeds(curves[1], hardware.name, ENCODING), folder, "ranks"),
            *style.save(
                plots.speeds(curves[SEQUENCES], hardware.name, ENCODING), folder, "ranks-batch"
            ),
            *style.save(plots.times(detail, hardware.name, ENCODING), folder, "ranks-time"),
        ]  # fmt: skip
    powered, energy = _powered(links[_DETAIL[1]])
    values = dict(
        folder=folder.as_posix(), pictures=Path("..") / folder, hardware=hardware, stored=stored,
        encoding=ENCODING, sequences=SEQUENCES, worthwhile=WORTHWHILE, detail=_DETAIL, shown=_SHOWN,
        measured=_measured(measured), gathered=_gathered(measured), left_out=stored["left_out"],
        powered=powered, powered_encoding=_POWERED_ENCODING, energy=energy,
        decoded=_decoded(stored, hardware, measured) if "decoding" in stored else None,
        collectives=_collectives(links), links=_links(links),
        saturated={sequences: _saturated(each) for sequences, each in curves.items()},
    )  # fmt: skip
    return [page.write(target, "scaling.md.jinja", values), *pictures]


def _links(links: Mapping[str, Link]) -> Table:
    columns: dict[str, Callable[[Any], Cell]] = {
        "link": lambda each: text(each.name),
        "latency, us": lambda each: number(1e6 * each.latency_s, "{:g}"),
        "GB/s": lambda each: number(each.bytes_per_s / 1e9, "{:g}"),
    }
    return table("links", "Links", columns, list(links.values()))


def _measured(links: list[MeasuredLink]) -> Table:
    columns: dict[str, Callable[[Any], Cell]] = {
        "link": lambda each: text(each.name),
        "made by": lambda each: text(each.asked["by"] if each.asked else "-"),
        "latency, us": lambda each: number(1e6 * each.latency, "{:.4g}"),
        "off": lambda each: number(each.error("latency"), "{:+.1%}"),
        "MB/s": lambda each: number(each.bandwidth / 1e6, "{:.4g}"),
        "off, rate": lambda each: number(each.error("bandwidth"), "{:+.1%}"),
        "barrier, us": lambda each: number(1e6 * each.barrier, "{:.4g}"),
        "predicted": lambda each: number(1e6 * each.predicted_barrier, "{:.4g}"),
    }
    return table("measured", "Links of this machine", columns, links)


def _gathered(links: list[MeasuredLink]) -> Table:
    columns: dict[str, Callable[[Any], Cell]] = {
        "bytes": lambda at: number(_FLOAT * ELEMENTS[at], "{:.0f}")
    }
    for each in links:
        columns |= {
            f"{each.name}, us": partial(_microseconds, each.gathers),
            f"{each.name}, predicted": partial(_microseconds, each.predicted),
        }
    return table("gathered", "Gathered vectors", columns, list(range(len(ELEMENTS))))


def _decoded(stored: Mapping[str, Any], hardware: Hardware, links: list[MeasuredLink]) -> Table:
    """Decoding here, beside what is predicted of it: all ranks share this machine."""
    about = stored["decoding"]
    config, encoding, context = SIZES[about["size"]], about["encoding"], about["context"]
    predicted = {
        plural(threads, "thread"): 1e-3
        * predict(config, hardware, encoding, threads, context=context).ms_per_token
        for threads in (1, 2)
    }
    for each in links:
        gathers = {each.ranks: (tuple(_FLOAT * count for count in ELEMENTS), each.gathers)}
        link = Link(each.name, each.latency, each.bandwidth, True, gathers)
        found = predict_ranks(config, hardware, link, Layout(each.ranks), encoding, 1, context)
        predicted[each.name] = 1 / found.tokens_per_second
    seconds = {name: statistics.median(values) for name, values in about["seconds"].items()}
    columns: dict[str, Callable[[Any], Cell]] = {
        "decoding": lambda name: text(name if "thread" in name else f"2 ranks, {name}"),
        "ms a token": lambda name: number(1e3 * seconds[name], "{:.2f}"),
        "rounds": lambda name: text(
            " ".join(f"{1e3 * value:.1f}" for value in about["seconds"][name])
        ),
        "predicted": lambda name: number(1e3 * predicted[name], "{:.2f}"),
        "error of the speed": lambda name: number(seconds[name] / predicted[name] - 1, "{:+.1%}"),
    }
    return table("decoded", "Decoding", columns, list(seconds))


def _microseconds(values: tuple[float, ...] | list[float], at: int) -> Cell:
    return number(1e6 * values[at], "{:.1f}")


def _collectives(links: Mapping[str, Link]) -> Table:
    """Rows beside columns: messages one after another, bytes, seconds a token."""
    columns: dict[str, Callable[[Any], Cell]] = {
        "layout": lambda size: text(size),
        "MB by rows": lambda size: number(_bytes(LAYOUTS[size])[0] / 1e6, "{:.1f}"),
        "by columns": lambda size: number(_bytes(LAYOUTS[size])[1] / 1e6, "{:.1f}"),
    }
    for name in LINKS:
        for words, seconds in (("rows", by_rows_s), ("columns", by_columns_s)):
            columns[f"{name}, ms by {words}"] = partial(_ms, seconds, links[name])
    return table("collectives", "Collectives of a token", columns, list(LAYOUTS))


def _ms(seconds: Callable[[Config, Link, int], float], link: Link, size: str) -> Cell:
    return number(1e3 * seconds(LAYOUTS[size], link, _SHOWN), "{:.2f}")


def _bytes(config: Config) -> tuple[float, float]:
    """That a rank receives of a token's vectors, by rows and by columns."""
    part = _FLOAT * config.layers * (_SHOWN - 1) / _SHOWN
    vectors = config.heads * config.head_dim + 2 * config.hidden + config.ffn
    return part * vectors, part * 4 * config.hidden


def _saturated(curves: list[Curve]) -> Table:
    columns: dict[str, Callable[[Any], Cell]] = {
        "layout": lambda each: text(each.size),
        "link": lambda each: text(each.link.name),
        "least ranks": lambda each: number(each.found[0].layout.ranks, "{:d}"),
        "tokens/s": lambda each: number(each.found[0].tokens_per_second, "{:.3g}"),
        "best": lambda each: number(each.best.layout.ranks, "{:d}"),
        "tokens/s, best": lambda each: number(each.best.tokens_per_second, "{:.3g}"),
        "as": lambda each: text(str(each.best.layout)),
        "GB a rank": lambda each: number(each.best.memory / 1e9, "{:.2f}"),
        "more ranks are not worth it": lambda each: text(saturation(each.found)),
    }
    return table(
        "saturated", "Where it saturates", columns, [each for each in curves if each.found]
    )


main = partial(on_results, "bench.ranks", __doc__ or "", LINKS_FILE, write)
