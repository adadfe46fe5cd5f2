"""``python -m ternops predict`` and ``calibrate``: the cost model."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ternops.commands import calibrate_mpi, options, predict_ranks
from ternops.encodings import ENCODINGS
from ternops.spelling import meant

if TYPE_CHECKING:
    from rich.table import Table

    from ternops.cost import Hardware, Prediction
    from ternops.decoder.config import Config

_DASH = "-"
_PIPE_WIDTH = 180  # columns where there is no terminal to be as wide as


class _Row(NamedTuple):
    """One combination; prediction is None where it cannot run, and `why` says so."""

    model: str
    hardware: str
    encoding: str
    threads: int
    prediction: Prediction | None
    why: str


def add(commands: Any) -> None:
    """Add both commands to the parser."""
    parser = commands.add_parser(
        "predict", help="how fast, and at what energy, a model runs on a machine",
        description="Milliseconds, tokens/s and joules a token from the cost model. Several "
        "models, machines or encodings give a table.",
    )  # fmt: skip
    parser.add_argument(
        "--model", nargs="+", required=True, metavar="MODEL",
        help="a size such as 70B or 2B4T, or what --model takes elsewhere: a folder or a file",
    )  # fmt: skip
    parser.add_argument(
        "--hardware", nargs="+", required=True, metavar="MACHINE",
        help="a shipped profile such as m2-ultra, or a TOML file that calibrate wrote",
    )  # fmt: skip
    parser.add_argument(
        "--encoding", nargs="+", default=["base3"], metavar="ENCODING",
        help=f"{', '.join((*ENCODINGS, 'fp16'))} (default: base3)",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, metavar="N", help="default: one a core")
    parser.add_argument(
        "--phase", choices=("decode", "prefill"), default="decode", help="default: decode"
    )
    parser.add_argument(
        "--context", type=int, default=128, metavar="N",
        help="positions before the token, or of the prompt (default: 128)",
    )  # fmt: skip
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="sequences (default: 1)")
    parser.add_argument("--plot", metavar="FILE", help="draw time by part and energy by term")
    predict_ranks.add(parser)
    parser.set_defaults(run=_predict)

    parser = commands.add_parser(
        "calibrate", help="measure this machine's profile for predict, within a minute"
    )
    parser.add_argument("--output", metavar="FILE", help="default: <cpu>.toml")
    parser.add_argument("--threads", nargs="+", type=int, metavar="N", help="default: 1, 2 and all")
    calibrate_mpi.add(parser)
    parser.set_defaults(run=_calibrate)


def _predict(arguments: argparse.Namespace) -> None:
    _need("rich")
    from rich.console import Console

    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    if predict_ranks.check(arguments):
        for each in predict_ranks.tables(arguments, *_asked(arguments)):
            console.print(each, highlight=False)
        return
    picture = None if arguments.plot is None else _picture(arguments.plot)
    rows = list(_rows(arguments))
    shown = [row for row in rows if row.prediction]
    if not shown:
        raise ValueError(rows[0].why)
    for table in [_summary(rows[0]), _parts(rows[0])] if len(rows) == 1 else [_comparison(rows)]:
        console.print(table)
    if any(row.prediction.unknown for row in shown if row.prediction):
        console.print("<=: the profile has no rate of a kernel; at most, as the memory allows")
    for row in rows:
        if not row.prediction:
            console.print(f"{row.model}, {row.encoding}: {row.why}", highlight=False)
    if picture:
        from ternops.cost import plot

        named = {_label(row, rows): row.prediction for row in shown if row.prediction}
        print(f"wrote {plot.write(picture, named)}")


def _need(package: str) -> None:
    """ModuleNotFoundError that names the extra, if the package is not there."""
    try:
        importlib.import_module(package)
    except ModuleNotFoundError:
        line = f"{package} is not installed: pip install 'ternops[cost]'"
        raise ModuleNotFoundError(line) from None


def _picture(name: str) -> Path:
    """Where --plot goes, once everything that it needs is there."""
    from ternops.cost import plot

    path = options.target("--plot", name)
    plot.check(path)
    _need("matplotlib")
    return path


def _asked(arguments: argparse.Namespace) -> tuple[dict[str, Config], list[Hardware]]:
    """Models and machines; ValueError for those, and for encodings, that are none."""
    from ternops.cost import load
    from ternops.cost.workload import FORMER_NAMES, KINDS

    arguments.encoding = [FORMER_NAMES.get(each, each) for each in arguments.encoding]
    for each in arguments.encoding:
        if each not in KINDS:
            raise ValueError(f"--encoding {each!r}: expected {' or '.join(KINDS)}")
    models = {each: _config(each) for each in dict.fromkeys(arguments.model)}
    return models, [load(each) for each in dict.fromkeys(arguments.hardware)]


def _rows(arguments: argparse.Namespace) -> Iterator[_Row]:
    """Every combination of models, machines and encodings."""
    from ternops.cost import predict

    models, machines = _asked(arguments)
    encodings = dict.fromkeys(arguments.encoding)
    for (model, config), hardware, encoding in product(models.items(), machines, encodings):
        threads = arguments.threads or hardware.threads
        try:
            prediction, why = predict(
                config, hardware, encoding, arguments.threads, arguments.phase, arguments.context,
                arguments.batch,
            ), ""  # fmt: skip
        except ValueError as error:
            prediction, why = None, str(error)
        yield _Row(model, hardware.name, encoding, threads, prediction, why)


def _config(model: str) -> Config:
    """The layout of a size, or of what is in a folder or a file."""
    from ternops.cost.layouts import SIZES, large
    from ternops.decoder import open_checkpoint
    from ternops.decoder.formats.hugging_face_config import read_config
    from ternops.decoder.formats.paths import hint, locate

    sizes = {**SIZES, **large()}
    if model in sizes:
        return sizes[model]
    try:
        where = locate(model, only_settings=True)
    except OSError as error:  # also a name that is too long, a folder that may not be entered
        more = hint(model) if isinstance(error, FileNotFoundError) else ""
        more += meant(model, [each for each in sizes if each.casefold() == model.casefold()])
        more = f"; {error}" if "the hub" in str(error) else more
        expected = f"expected a folder, a file, a model of the hub or one of {', '.join(sizes)}"
        raise ValueError(f"--model {model!r}: {expected}{more}") from None
    if (where / "config.json").is_file() and not any(where.glob("*.safetensors")):
        return read_config(where)  # of the hub: without the weights
    return open_checkpoint(where).config


def _speed(prediction: Prediction) -> str:
    most = "<= " if prediction.unknown else ""
    return f"{most}{prediction.tokens_per_second:.4g}"


def _joules(prediction: Prediction) -> str:
    return f"{prediction.joules_per_token:.3g}" if prediction.terms else _DASH


def _summary(row: _Row) -> Table:
    from rich.table import Table

    table = Table(title=f"{row.model}, {row.encoding}, {row.hardware}, {row.threads} thread(s)")
    for column in ("ms/token", "tokens/s", "J/token", "MB/token", "bound by"):
        table.add_column(column, justify="right")
    found = row.prediction
    assert found
    read = found.work.bytes / found.work.tokens / 1e6
    table.add_row(
        f"{found.ms_per_token:.4g}", _speed(found), _joules(found), f"{read:.4g}", found.bound
    )
    return table


def _parts(row: _Row) -> Table:
    from rich.table import Table

    table = Table(title="by part, ms a token")
    # Computing and reading overlap: "product" is both.
    columns = ("part", "compute", "memory", "product", "prepare", "barriers", "fixed", "all",
               "bound by")  # fmt: skip
    for column in columns:
        table.add_column(column, justify="left" if column == "part" else "right")
    found = row.prediction
    assert found
    for name, part in found.parts.items():
        seconds = (part.compute, part.memory, part.product, part.prepare, part.barriers,
                   part.fixed, part.seconds)  # fmt: skip
        shown = [f"{1e3 * each / found.work.tokens:.3f}" for each in seconds]
        if not part.known:
            shown[0] = "unknown"
        table.add_row(name, *shown, part.bound)
    return table


def _comparison(rows: list[_Row]) -> Table:
    from rich.table import Table

    table = Table()
    for column in ("model", "machine", "encoding", "threads", "ms/token", "tokens/s", "J/token",
                   "bound by"):  # fmt: skip
        justify: Any = "left" if column in ("model", "machine") else "right"
        table.add_column(column, justify=justify, overflow="fold")
    for row in rows:
        found = row.prediction
        figures = (
            (f"{found.ms_per_token:.4g}", _speed(found), _joules(found), found.bound)
            if found else (_DASH,) * 4
        )  # fmt: skip
        table.add_row(row.model, row.hardware, row.encoding, str(row.threads), *figures)
    return table


def _label(row: _Row, rows: list[_Row]) -> str:
    """What tells this row from the others."""
    words = [
        getattr(row, name)
        for name in ("model", "encoding", "hardware")
        if len({getattr(each, name) for each in rows}) > 1
    ]
    return "\n".join(words) or f"{row.model}\n{row.encoding}"


def _calibrate(arguments: argparse.Namespace) -> None:
    from ternops.cost.calibrate import calibrate
    from ternops.cost.profile import save
    from ternops.cpu_caches import cpu_model
    from ternops.files import behind_links, is_node
    from ternops.threads import check_threads, default_threads

    _need("tomli_w")
    name = re.sub(r"[^a-z0-9]+", "-", cpu_model().lower()).strip("-") or "cpu"
    output = f"{name}.toml" if arguments.output is None else arguments.output
    path = options.target("--output", output)
    # What --output /dev/stdout shows is the profile alone.
    told = sys.stderr if is_node(behind_links(path)) else sys.stdout

    def tell(line: str) -> None:
        print(line, file=told, flush=True)

    if arguments.mpi:
        if arguments.threads:
            raise ValueError("--mpi with --threads: expected one of them")
        calibrate_mpi.calibrate(path, tell)
        return
    threads = [check_threads(each) for each in arguments.threads or ()]
    for each in threads:
        if each > default_threads():
            raise ValueError(
                f"--threads {each}: expected at most the {default_threads()} usable CPUs"
            )
    profile = calibrate(threads, lambda what: tell(f"measuring {what} ..."))
    save(profile, path)
    tell(f"wrote {path}")
