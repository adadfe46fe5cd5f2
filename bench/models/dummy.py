"""Write a model of random weights, for timing other engines on the layouts that are timed here.

    python -m bench.dummy --size 7B --format gguf-tq2_0

gguf-*: for llama.cpp; embedding and head are fp16. hf: a folder for transformers and what reads
its packed BitNet models. Text that these models generate is noise.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from bench.core.command import make_parser
from bench.models import random_folder, random_gguf
from ternops.cost import layouts
from ternops.cost.layouts import SIZES
from ternops.decoder import Config
from ternops.files import replaced
from ternops.spelling import one_of

FORMATS = ("gguf-tq1_0", "gguf-tq2_0", "hf")
#: Of the embedding and the head in GGUF files.
_HEAD = "f16"
#: Embedding models, under names that are one word.
EMBEDDERS = {name.replace(" ", "-"): config for name, config in layouts.EMBEDDERS.items()}
#: Bytes of headers and tokenizers, at the most.
_HEADERS = 16 << 20
_GIGABYTE = 1e9


@dataclass(frozen=True)
class Dummy:
    """What is written: `write` takes a path and a function that is called with the bytes written.

    note: what differs from the layout, empty if nothing does.
    """

    nbytes: int
    write: Callable[[Path, Callable[[int], object]], None]
    note: str = ""


def main(argv: list[str] | None = None) -> int:
    """0, or 2 with one line on stderr and nothing written."""
    arguments = _parser().parse_args(argv)
    size, kind = arguments.size, arguments.format
    try:
        sizes = SIZES | EMBEDDERS
        if size not in sizes:
            raise ValueError(f"--size {size!r}: {one_of(size, sizes)}")
        if size in EMBEDDERS and kind != "hf":
            raise ValueError(f"--format {kind}: expected hf for {size}, which llama.cpp has not")
        dummy = plan(size, sizes[size], kind)
        path = Path(arguments.output or _default_path(size, kind))
        _check_path(path, kind, arguments.force)
        _check_room(path, dummy.nbytes)
        with _place(path, kind) as temporary, _progress(path.name, dummy.nbytes) as advance:
            dummy.write(temporary, advance)
    except (ValueError, OSError) as error:
        print(f"bench.dummy: {error}", file=sys.stderr)
        return 2
    note = f"; {dummy.note}" if dummy.note else ""
    print(f"{path}: {size} as {kind}, {dummy.nbytes / _GIGABYTE:.2f} GB of random weights{note}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("bench.dummy", "Write a model of random weights.")
    parser.add_argument("--size", required=True, help=", ".join(SIZES | EMBEDDERS))
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument("--output", metavar="PATH", help="default: ./dummy-SIZE-FORMAT")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    return parser


def plan(size: str, config: Config, kind: str) -> Dummy:
    """How a layout is written in one of FORMATS."""
    if kind == "hf":
        return Dummy(
            random_folder.tensor_bytes(config),
            lambda path, advance: _write_folder(path, config, advance, size in EMBEDDERS),
        )
    linear = kind.removeprefix("gguf-")
    # Blocks of 256 do not divide every row.
    rounded, _ = random_gguf.for_llama_cpp(config, linear, _HEAD)
    name, notes = f"Random {size}", []
    for field in ("hidden", "ffn", "head_dim"):
        before, after = getattr(config, field), getattr(rounded, field)
        if before != after:
            notes.append(f"{field} is {after} for {before}, to fill blocks")
    if config.activation != "silu":
        notes.append(f"llama.cpp computes SiLU for {config.activation}")
    return Dummy(
        random_gguf.tensor_bytes(rounded, linear, _HEAD),
        lambda path, advance: random_gguf.write_gguf(path, rounded, linear, _HEAD, name, advance),
        "; ".join(notes),
    )


def _write_folder(
    path: Path, config: Config, advance: Callable[[int], object], embeds: bool
) -> None:
    random_folder.write_folder(path, config, advance)
    if embeds:
        random_folder.write_pooling(path, config)


def _default_path(size: str, kind: str) -> str:
    if kind == "hf":
        return f"dummy-{size}-hf"
    return f"dummy-{size}-{kind.removeprefix('gguf-')}.gguf"


def _check_path(path: Path, kind: str, force: bool) -> None:
    """Raises ValueError for what must not, or cannot, be replaced."""
    if not path.parent.is_dir():
        raise ValueError(f"--output {str(path)!r}: {str(path.parent)!r} is no folder")
    if not path.exists() and not path.is_symlink():
        return
    if not force:
        raise ValueError(f"--output {str(path)!r} exists, --force replaces it")
    if kind != "hf":
        if not path.is_file():
            raise ValueError(f"--output {str(path)!r} is no file, expected one to replace")
    elif not path.is_dir() or path.is_symlink():
        raise ValueError(f"--output {str(path)!r} is no folder, expected one to replace")
    # A folder of anything else is not thrown away.
    elif others := sorted(
        {each.name for each in path.iterdir()} - {*random_folder.FILES, *random_folder.POOLING}
    ):
        raise ValueError(
            f"--output {str(path)!r} holds {others[0]!r}, expected a folder that bench.dummy wrote"
        )


def _check_room(path: Path, nbytes: int) -> None:
    needed, free = nbytes + _HEADERS, shutil.disk_usage(path.parent).free
    if needed > free:
        raise OSError(
            f"--output {str(path)!r}: needs {needed / _GIGABYTE:.1f} GB, "
            f"{free / _GIGABYTE:.1f} GB are free"
        )


def _place(path: Path, kind: str) -> AbstractContextManager[Path]:
    return _replaced_folder(path) if kind == "hf" else replaced(path)


@contextmanager
def _replaced_folder(path: Path) -> Iterator[Path]:
    """As `replaced`, for a folder: yields a new one, which becomes `path` if the block succeeds."""
    with tempfile.TemporaryDirectory(prefix=path.name, suffix=".tmp", dir=path.parent) as beside:
        new, old = Path(beside, "new"), Path(beside, "old")
        new.mkdir()
        yield new
        if path.exists():
            path.rename(old)
        try:
            new.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise


@contextmanager
def _progress(what: str, nbytes: int) -> Iterator[Callable[[int], object]]:
    """A bar on stderr, if that is a terminal; yields a function that advances it by some bytes."""
    console = Console(stderr=True)
    if not console.is_terminal:  # where rich 13 prints an empty line for a bar that is disabled
        yield lambda done: None
        return
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(), console=console, transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task(what, total=nbytes)
        yield lambda done: bar.advance(task, done)
