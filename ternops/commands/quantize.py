"""``python -m ternops quantize`` and ``verify``: the packed model file."""

from __future__ import annotations

import argparse
import glob
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ternops.commands import options
from ternops.encodings import TERNARY


def add(commands: Any) -> None:
    """Add both commands to the parser."""
    parser = commands.add_parser(
        "quantize", help="write a model as one packed file, which opens at once, or as GGUF",
        description="Write a model as one packed safetensors file, which opens at once and needs "
        "its own size in memory. If it is interrupted, the same command goes on. With --shards it "
        "is a folder of files of which each process of mpirun needs its own alone. Or write it as "
        "a GGUF file, for llama.cpp.",
    )  # fmt: skip
    parser.add_argument("source", metavar="SRC", help="what --model takes: a folder or a file")
    parser.add_argument(
        "target", metavar="DST", help="the file, or with --shards the folder, to write"
    )
    parser.add_argument(
        "--to", choices=("packed", "gguf"), default="packed", help="the format (default: packed)"
    )
    parser.add_argument(
        "--encoding", choices=TERNARY,
        help="how the linear layers are packed (default: base3); in GGUF base3 is TQ1_0 and "
        "two_bit TQ2_0 (default), and what these cannot hold becomes Q2_0",
    )  # fmt: skip
    parser.add_argument(
        "--shards", type=int, metavar="N",
        help="write a part for each of N processes, for hosts that share no file system",
    )  # fmt: skip
    parser.add_argument(
        "--layout", metavar="LAYOUT",
        help="how these processes share the model out, as tp=2,pp=2 (default: tp=N)",
    )  # fmt: skip
    options.add_quantize_option(parser)
    parser.set_defaults(run=_quantize)

    parser = commands.add_parser("verify", help="compare the checksums of a packed file")
    parser.add_argument("file", metavar="FILE", help="what quantize wrote, or one of its parts")
    parser.set_defaults(run=_verify)


def _quantize(arguments: argparse.Namespace) -> None:
    if arguments.shards is None and arguments.layout is not None:
        raise ValueError(f"--layout {arguments.layout}: expected it with --shards N")
    if arguments.to == "gguf":
        _to_gguf(arguments)
    elif arguments.shards is None:
        _to_packed(arguments)
    else:
        _to_parts(arguments)


def _to_gguf(arguments: argparse.Namespace) -> None:
    from ternops.decoder.formats.convert_gguf import convert_to_gguf

    if arguments.shards is not None:
        raise ValueError(f"--shards {arguments.shards}: expected --to packed")
    with options.progress("quantizing") as show:
        convert_to_gguf(
            arguments.source, arguments.target, arguments.encoding or "two_bit", show,
            options.note, arguments.quantize,
        )  # fmt: skip
    _say_size(arguments.target, "GGUF")


def _to_packed(arguments: argparse.Namespace) -> None:
    from ternops.decoder.formats.convert import convert
    from ternops.files import behind_links

    target = behind_links(arguments.target)
    encoding = arguments.encoding or "base3"
    with _resumable(arguments.target, target.parent, f"{glob.escape(target.name)}.partial") as show:
        convert(
            arguments.source, arguments.target, encoding, show, options.note, arguments.quantize
        )
    _say_size(arguments.target, encoding)


def _to_parts(arguments: argparse.Namespace) -> None:
    from ternops.decoder.formats.convert_parts import convert_parts

    encoding, folder = arguments.encoding or "base3", Path(arguments.target)
    with _resumable(arguments.target, folder, "part-*.partial") as show:
        layout = convert_parts(
            arguments.source, folder, arguments.shards, encoding, arguments.layout, show,
            options.note, arguments.quantize,
        )  # fmt: skip
    sizes = [each.stat().st_size for each in folder.iterdir()]
    print(
        f"{arguments.target}: {encoding}, {len(sizes)} parts ({layout}), {sum(sizes):,} bytes, "
        f"{max(sizes):,} the largest"
    )


@contextmanager
def _resumable(name: str, folder: Path, partials: str) -> Iterator[options.Progress]:
    """Progress of what an interruption leaves beside what is written, as files of a pattern; an
    error says so."""
    try:
        with options.progress("quantizing") as show:
            yield show
    except KeyboardInterrupt:
        if hint := _kept(folder, partials):
            options.note(f"interrupted; {hint}")
        raise
    except OSError as error:
        hint = _kept(folder, partials)
        if isinstance(error, FileNotFoundError) or not hint:
            raise
        raise OSError(f"{name}: {error.strerror or error}; {hint}") from None


def _kept(folder: Path, partials: str) -> str:
    """What there is to say of the first such file; "" if there is none."""
    found = min(folder.glob(partials), default=None)
    return "" if found is None else f"{found} is kept: the same command goes on with it"


def _say_size(name: str, content: str) -> None:
    from ternops.files import behind_links, is_node

    target = behind_links(name)
    if is_node(target):
        options.note(f"{name}: {content}")
    else:
        print(f"{name}: {content}, {target.stat().st_size:,} bytes")


def _verify(arguments: argparse.Namespace) -> None:
    from ternops.decoder.formats.placeholders import check_fetched
    from ternops.decoder.formats.stack_file import open_packed

    path = Path(arguments.file)
    if not path.is_file():
        raise FileNotFoundError(f"{arguments.file!r} is not a file")
    check_fetched(path)
    count = sum(1 for _ in open_packed(path).verify())
    print(f"{arguments.file}: intact, {count} tensors")
