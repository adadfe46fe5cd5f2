"""``python -m ternops embed``: vectors of texts."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from ternops.commands import options

if TYPE_CHECKING:
    import numpy.typing as npt


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "embed", help="vectors of texts",
        description="A vector for each text, in the order of the texts: to stdout as lines of JSON "
        "with text and embedding, or to a NumPy file.",
    )  # fmt: skip
    parser.add_argument("text", nargs="*", metavar="TEXT", help="default: the lines of stdin")
    parser.add_argument("--output", metavar="FILE", help="a .npy file in place of lines of JSON")
    parser.add_argument(
        "--dtype", choices=("float32", "int8", "binary"), default="float32",
        help="int8 or binary: as sentence-transformers quantises (default: float32)",
    )  # fmt: skip
    parser.add_argument(
        "--prompt",
        metavar="TEXT",
        help="before each text (default: the one that the model's files name, if any)",
    )
    parser.add_argument(
        "--no-normalize", action="store_true", help="as they are (default: of length 1)"
    )
    parser.add_argument(
        "--truncate", action="store_true", help="cut off texts that are too long for the model"
    )
    options.add_model_options(parser, decodes=False)
    parser.set_defaults(run=_run, head="fp16", sparse="never")


def _run(arguments: argparse.Namespace) -> None:
    from ternops.decoder.embed import Embedder, quantize_embeddings, unit_length
    from ternops.decoder.formats.loading import open_checkpoint
    from ternops.decoder.formats.pooling import MEAN
    from ternops.decoder.texts import Texts

    if arguments.output is not None:
        if not arguments.output.endswith(".npy"):
            raise ValueError(f"--output: {arguments.output!r}, expected a name that ends in .npy")
        options.target("--output", arguments.output)
    name = "TEXT" if arguments.text else "stdin"
    lines = arguments.text or _lines()
    lines = [options.checked(f"{name}[{number}]", line) for number, line in enumerate(lines)]
    prompt = options.checked("--prompt", arguments.prompt or "")
    checkpoint = open_checkpoint(arguments.model)
    config = checkpoint.config
    context = options.chosen_context(arguments, config, config.context)
    texts = Texts(checkpoint)
    if arguments.prompt is None:
        prompt = texts.prompt(None)
    tokens = texts.tokens(lines, prompt, context, arguments.truncate, name)
    model = options.load_model(arguments)
    embed = Embedder(model)
    mean = texts.pooling.mode == MEAN
    with options.progress("compiling") as show:
        show(0, 1)
        embed(tokens.ids[:1], mean, tokens.skipped)
    start = time.perf_counter()
    with options.progress("embedding") as show:
        found = embed(tokens.ids, mean, tokens.skipped, show)
    seconds = time.perf_counter() - start
    if not arguments.no_normalize:
        found = unit_length(found)
    found = quantize_embeddings(found, arguments.dtype)
    if arguments.output is None:
        _print(lines, found)
    else:
        _save(arguments.output, found)
    count = sum(map(len, tokens.ids))
    source = texts.pooling.source or "no file says otherwise"
    print(
        f"[{len(lines)} text(s), {count} tokens, {len(lines) / seconds:.1f} texts/s, "
        f"{count / seconds:.1f} tokens/s; pooling: {texts.pooling.mode} ({source}); "
        f"{model.threads} thread(s), {model.encoding} weights, {model.cache} cache]",
        file=sys.stderr,
    )


def _lines() -> list[str]:
    """Those of stdin."""
    if sys.stdin is None:
        raise ValueError("stdin: closed, expected a text in each line")
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"stdin: not UTF-8 at byte {error.start}") from None
    if not text:
        raise ValueError("stdin: empty, expected a text in each line")
    lines = options.unmarked(text).removesuffix("\n").split("\n")
    return [line.removesuffix("\r") for line in lines]


def _print(lines: list[str], found: npt.NDArray[Any]) -> None:
    for line, row in zip(lines, found, strict=True):
        # The shortest decimals that are these float32.
        values = [float(str(each)) for each in row] if row.dtype.kind == "f" else row.tolist()
        print(json.dumps({"text": line, "embedding": values}, ensure_ascii=False))


def _save(path: str, found: npt.NDArray[Any]) -> None:
    from ternops.files import replaced

    with replaced(path) as temporary, open(temporary, "wb") as file:
        np.save(file, found, allow_pickle=False)
