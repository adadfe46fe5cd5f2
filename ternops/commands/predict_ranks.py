"""``python -m ternops predict --ranks``: several machines, or processes, that decode together."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rich.table import Table

    from ternops.cost.hardware import Hardware
    from ternops.cost.link import Link
    from ternops.cost.ranks import RanksPrediction
    from ternops.decoder.config import Config

MAX_RANKS = 4096


class _Row(NamedTuple):
    """One number of ranks; prediction is None where it cannot be, and `why` says so, or why the
    layout is that one."""

    ranks: int
    prediction: RanksPrediction | None
    why: str


def add(parser: Any) -> None:
    """Add the options to those of ``predict``."""
    parser.add_argument(
        "--ranks", type=int, metavar="N",
        help="processes that share a model out, as of mpirun -n N; 1, 2, 4, ... N are shown",
    )  # fmt: skip
    parser.add_argument(
        "--link", metavar="LINK",
        help="between ranks: 1GbE, 10GbE, 100GbE, IB, shm (all on one machine), LATENCY,RATE as in "
        "1ms,1Gbit/s, or a file that calibrate --mpi wrote (default: the machine's own)",
    )  # fmt: skip
    parser.add_argument(
        "--layout", metavar="LAYOUT",
        help="tp=N: ranks that share matrices out, pp=N: stages of layers, or both as in tp=2,pp=4 "
        "(default: the fastest, and why)",
    )  # fmt: skip


def check(arguments: argparse.Namespace) -> bool:
    """Whether ranks are asked for; ValueError for what does not go with them."""
    if arguments.ranks is None:
        for name in ("link", "layout"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"--{name}: expected --ranks with it")
        return False
    if not 0 < arguments.ranks <= MAX_RANKS:
        raise ValueError(f"--ranks {arguments.ranks}: expected 1 to {MAX_RANKS}")
    if arguments.phase != "decode":
        raise ValueError(f"--ranks with --phase {arguments.phase}: expected --phase decode")
    if arguments.plot is not None:
        raise ValueError("--ranks with --plot: expected one of them")
    return True


def tables(
    arguments: argparse.Namespace, models: Mapping[str, Config], machines: list[Hardware]
) -> Iterator[Table | str]:
    """For every model, machine and encoding a table, why that layout, and where it saturates."""
    for model, config in models.items():
        for hardware in machines:
            link = _link(arguments.link, hardware)
            for encoding in dict.fromkeys(arguments.encoding):
                rows = list(_rows(arguments, config, hardware, link, encoding))
                yield from _shown(f"{model}, {encoding}, {hardware.name}, {link.name}", rows)


def _link(name: str | None, hardware: Hardware) -> Link:
    from ternops.cost.known_links import load_link

    if name is not None:
        return load_link(name)
    if hardware.link is None:
        raise ValueError(
            f"--link: {hardware.name} has none of its own, expected a link: 10GbE, shm, 1ms,1Gbit/s"
        )
    return hardware.link


def _rows(
    arguments: argparse.Namespace, config: Config, hardware: Hardware, link: Link, encoding: str
) -> Iterator[_Row]:
    from ternops.cost.ranks import best_layout, predict_ranks
    from ternops.ranks.split import Layout, parse_layout

    most = arguments.ranks
    more = arguments.threads, arguments.context, arguments.batch
    if arguments.layout is not None:
        layouts = {1: Layout(), most: parse_layout(arguments.layout, most)}
        for ranks, layout in layouts.items():
            try:
                found = predict_ranks(config, hardware, link, layout, encoding, *more)
            except ValueError as error:
                yield _Row(ranks, None, str(error))
            else:
                yield _Row(ranks, found, "")
        return
    counts = [2**power for power in range(most.bit_length()) if 2**power < most] + [most]
    for ranks in counts:
        try:
            plan = best_layout(config, hardware, link, ranks, encoding, *more)
        except ValueError as error:
            yield _Row(ranks, None, str(error))
        else:
            yield _Row(ranks, plan.prediction, plan.reason if ranks == most else "")


def _shown(title: str, rows: list[_Row]) -> Iterator[Table | str]:
    from ternops.cost.ranks import saturation

    found = [row.prediction for row in rows if row.prediction]
    if not found:
        raise ValueError(rows[-1].why)
    yield _table(title, rows)
    yield from (f"{row.ranks} rank(s): {row.why}" for row in rows if row.why)
    if any(each.unknown for each in found):
        yield "<=: the profile has no rate of a kernel; at most, as the memory allows"
    doubling = [each for each in found if each.layout.ranks & (each.layout.ranks - 1) == 0]
    if len(doubling) > 1:
        yield f"saturates {saturation(doubling)}"


def _table(title: str, rows: list[_Row]) -> Table:
    from rich.table import Table

    table = Table(title=title)
    for column in ("ranks", "layout", "tokens/s", "ms/token", "J/token", "GB a rank", "link",
                   "most of the time"):  # fmt: skip
        table.add_column(column, justify="left" if column == "layout" else "right")
    for row in rows:
        each = row.prediction
        if each is None:
            table.add_row(str(row.ranks), *["-"] * 7)
            continue
        joules = each.joules_per_token
        table.add_row(
            str(row.ranks), str(each.layout),
            f"{'<= ' if each.unknown else ''}{each.tokens_per_second:.4g}",
            f"{1e3 * math.fsum(each.seconds.values()):.4g}",
            "-" if math.isnan(joules) else f"{joules:.3g}", f"{each.memory / 1e9:.3g}",
            f"{each.link_share:.0%}", each.bound,
        )  # fmt: skip
    return table
