"""``python -m ternops perplexity``: how well a model predicts a text, in all its digits."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from ternops.commands import options
from ternops.commands.tiers import output_on
from ternops.encodings import TERNARY

_CONTEXT = 512


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "perplexity", help="how well a model predicts a text",
        description="exp of the mean negative log-likelihood of the tokens of a text, each given "
        "those before it in its window.",
    )  # fmt: skip
    parser.add_argument("--text", required=True, metavar="FILE", help="UTF-8 (-: stdin)")
    parser.add_argument(
        "--table",
        action="store_true",
        help="every encoding on every tier of this CPU; exit code 1 unless all digits are equal",
    )
    options.add_model_options(
        parser, f"tokens of a window, BOS included (default: the model's, at most {_CONTEXT})"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.table:
        if arguments.text == "-":
            raise ValueError("--text: stdin, which can be read once, expected a file with --table")
        return _table(arguments)
    from ternops.decoder.formats.loading import open_checkpoint
    from ternops.decoder.perplexity import likelihood, perplexity, windows

    checkpoint = open_checkpoint(arguments.model)
    config = checkpoint.config
    context = options.chosen_context(arguments, config, min(config.context, _CONTEXT))
    text = options.unmarked(options.read_text("--text", arguments.text))
    tokenizer = checkpoint.tokenizer()
    parts = list(windows(tokenizer, text, context))
    if not parts:
        raise ValueError(f"--text: {arguments.text!r} is too short, expected a token to predict")
    for window in parts:
        options.check_known("--text", tokenizer, window, config.vocabulary)
    arguments.context = context
    model = options.load_model(arguments)
    session = options.start_session(model)
    losses: list[float] = []
    start = time.perf_counter()
    with options.progress("predicting") as show:
        for done, window in enumerate(parts, 1):
            losses += likelihood(session, window).losses
            show(done, len(parts))
    rate = sum(map(len, parts)) / (time.perf_counter() - start)
    print(f"perplexity  {perplexity(losses)!r}")
    print(f"tokens      {len(losses)} in {len(parts)} windows of {context}")
    print(f"tokens/s    {rate:.1f}")
    if session.active_share < 1:
        print(f"active      {session.active_share:.1%} of the linear layers' weights")
    print(f"[{options.describe(model)}]", file=sys.stderr)
    return 0


def _table(arguments: argparse.Namespace) -> int:
    """Every encoding on every tier, each in a process of its own; 1 unless all are equal."""
    from rich.console import Console
    from rich.table import Table

    from ternops.isa import detect

    table = Table("tier", "encoding", "perplexity", "tokens/s")
    found = set()
    tiers = [tier.name for tier in detect.available()]
    with options.progress("predicting") as show:
        for done, (tier, encoding) in enumerate((t, e) for t in tiers for e in TERNARY):
            show(done, len(tiers) * len(TERNARY))
            figures = _figures(arguments, tier, encoding)
            table.add_row(tier, encoding, figures["perplexity"], figures["tokens/s"])
            found.add(figures["perplexity"])
    Console().print(table)
    print("all digits are equal" if len(found) == 1 else f"{len(found)} different perplexities")
    return 0 if len(found) == 1 else 1


def _figures(arguments: argparse.Namespace, tier: str, encoding: str) -> dict[str, str]:
    command = ["-m", "ternops", "perplexity", "--weights", encoding]
    same = ("text", "context", "model", "head", "cache", "threads", "quantize", "delta", "lora")
    for name in same:
        value = getattr(arguments, name)
        if value is not None:
            command += [f"--{name}={value}"]
    lines = output_on(tier, command, encoding).splitlines()
    return {key: value for key, value in (line.split(None, 1) for line in lines)}
