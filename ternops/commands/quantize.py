"""``python -m ternops quantize`` and ``verify``: the packed model file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ternops.commands import options
from ternops.encodings import TERNARY


def add(commands: Any) -> None:
    """Add both commands to the parser."""
    parser = commands.add_parser(
        "quantize", help="write a model as one packed file, which opens at once",
        description="Write a model as one packed safetensors file, which opens at once and needs "
        "its own size in memory. If it is interrupted, the same command goes on.",
    )  # fmt: skip
    parser.add_argument("source", metavar="SRC", help="what --model takes: a folder or a file")
    parser.add_argument("target", metavar="DST", help="the file to write")
    parser.add_argument(
        "--encoding", choices=TERNARY, default="base3",
        help="how the linear layers are packed (default: base3)",
    )  # fmt: skip
    options.add_quantize_option(parser)
    parser.set_defaults(run=_quantize)

    parser = commands.add_parser("verify", help="compare the checksums of a packed file")
    parser.add_argument("file", metavar="FILE", help="what quantize wrote")
    parser.set_defaults(run=_verify)


def _quantize(arguments: argparse.Namespace) -> None:
    from ternops.decoder.formats.convert import convert
    from ternops.files import behind_links, is_node

    target = behind_links(arguments.target)
    partial = target.with_name(f"{target.name}.partial")
    hint = f"{partial} is kept: the same command goes on with it"
    try:
        with options.progress("quantizing") as show:
            convert(
                arguments.source, arguments.target, arguments.encoding, show, options.note,
                arguments.quantize,
            )  # fmt: skip
    except KeyboardInterrupt:
        if partial.exists():
            options.note(f"interrupted; {hint}")
        raise
    except OSError as error:
        if isinstance(error, FileNotFoundError) or not partial.exists():
            raise
        raise OSError(f"{arguments.target}: {error.strerror or error}; {hint}") from None
    if is_node(target):
        options.note(f"{arguments.target}: {arguments.encoding}")
        return
    size = target.stat().st_size
    print(f"{arguments.target}: {arguments.encoding}, {size:,} bytes")


def _verify(arguments: argparse.Namespace) -> None:
    from ternops.decoder.formats.packed import PackedFile
    from ternops.decoder.formats.placeholders import check_fetched

    path = Path(arguments.file)
    if not path.is_file():
        raise FileNotFoundError(f"{arguments.file!r} is not a file")
    check_fetched(path)
    count = sum(1 for _ in PackedFile(path).verify())
    print(f"{arguments.file}: intact, {count} tensors")
