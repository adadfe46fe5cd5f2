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
        "quantize", help="write a model as one packed file, which opens at once, or as GGUF",
        description="Write a model as one packed safetensors file, which opens at once and needs "
        "its own size in memory. If it is interrupted, the same command goes on. Or write it as a "
        "GGUF file, for llama.cpp.",
    )  # fmt: skip
    parser.add_argument("source", metavar="SRC", help="what --model takes: a folder or a file")
    parser.add_argument("target", metavar="DST", help="the file to write")
    parser.add_argument(
        "--to", choices=("packed", "gguf"), default="packed", help="the format (default: packed)"
    )
    parser.add_argument(
        "--encoding", choices=TERNARY,
        help="how the linear layers are packed (default: base3); in GGUF base3 is TQ1_0 and "
        "two_bit TQ2_0 (default), and what these cannot hold becomes Q2_0",
    )  # fmt: skip
    options.add_quantize_option(parser)
    parser.set_defaults(run=_quantize)

    parser = commands.add_parser("verify", help="compare the checksums of a packed file")
    parser.add_argument("file", metavar="FILE", help="what quantize wrote")
    parser.set_defaults(run=_verify)


def _quantize(arguments: argparse.Namespace) -> None:
    if arguments.to == "gguf":
        _to_gguf(arguments)
    else:
        _to_packed(arguments)


def _to_gguf(arguments: argparse.Namespace) -> None:
    from ternops.decoder.formats.convert_gguf import convert_to_gguf

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
    partial = target.with_name(f"{target.name}.partial")
    encoding = arguments.encoding or "base3"
    hint = f"{partial} is kept: the same command goes on with it"
    try:
        with options.progress("quantizing") as show:
            convert(
                arguments.source, arguments.target, encoding, show, options.note,
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
    _say_size(arguments.target, encoding)


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
