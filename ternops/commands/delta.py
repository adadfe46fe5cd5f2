"""``python -m ternops delta``: what fine-tuning changed, one bit a weight."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ternops.commands import options

if TYPE_CHECKING:
    from ternops.decoder.deltas import Delta
    from ternops.decoder.model import Model

#: Tokens of a text that scales are fitted to: each scale takes a pass over them a step.
MAX_TOKENS = 128


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "delta", help="write what fine-tuning changed of a model, one bit a weight",
        description="Write the signs of what fine-tuning changed of the linear layers of a model, "
        "and a scale for each (BitDelta): many such files are served beside one base.",
    )  # fmt: skip
    parser.add_argument("base", metavar="BASE", help="what --model takes: a folder or a file")
    parser.add_argument("tuned", metavar="TUNED", help="the same of the fine-tuned model")
    parser.add_argument("target", metavar="OUT", help="the file to write")
    parser.add_argument(
        "--distill", metavar="FILE",
        help=f"fit the scales to the fine-tuned model's logits on the first {MAX_TOKENS} tokens of "
        "a text (default: to the weights alone)",
    )  # fmt: skip
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from ternops.decoder.distill import make_delta
    from ternops.decoder.formats.delta_file import write_delta
    from ternops.decoder.formats.loading import open_checkpoint
    from ternops.files import behind_links, check_writable, is_node

    check_writable(arguments.target)
    base, tuned = (open_checkpoint(each) for each in (arguments.base, arguments.tuned))
    with options.progress("comparing") as show:
        found, left = make_delta(base, tuned, show)
    if left:
        options.note(f"{', '.join(left)}: left as the base has them, though they differ")
    if arguments.distill is not None:
        found = _distilled(arguments, found)
    write_delta(arguments.target, base.config, found)
    target = behind_links(arguments.target)
    size = "" if is_node(target) else f", {target.stat().st_size:,} bytes"
    weights = base.config.linear_weights
    print(f"{arguments.target}: {8 * found.nbytes / weights:.3f} bits a weight{size}")


def _distilled(arguments: argparse.Namespace, found: Delta) -> Delta:
    from ternops.decoder.distill import distill
    from ternops.decoder.formats.loading import open_checkpoint

    text = options.unmarked(options.read_text("--distill", arguments.distill))
    tuned = _model(arguments.tuned)
    tokenizer = open_checkpoint(arguments.tuned).tokenizer()
    tokens = tokenizer.encode(text).ids[: min(MAX_TOKENS, tuned.config.context)]
    if not tokens:
        raise ValueError("--distill: empty, expected at least one token")
    options.check_known("--distill", tokenizer, tokens, tuned.config.vocabulary)
    target = tuned.logits(tokens)
    del tuned
    distilled, errors = distill(_model(arguments.base, {"tuned": found}), "tuned", tokens, target)
    options.note(
        f"mean squared error of the likeliest logits: {errors[0]:.4g}, distilled {errors[-1]:.4g}"
    )
    return distilled


def _model(path: str, deltas: dict[str, Delta] | None = None) -> Model:
    """A model whatever its weights are, with deltas in memory."""
    from ternops.decoder.formats.loading import HALF, load_weights, open_checkpoint
    from ternops.decoder.model import Model

    checkpoint = open_checkpoint(path)
    with options.progress("loading") as show:
        weights = load_weights(checkpoint, HALF if checkpoint.is_float else "auto", show)
    return Model(weights, deltas=deltas)
