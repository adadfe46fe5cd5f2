"""``python -m ternops generate``: continue a text."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ternops.commands import options


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("generate", help="continue a text, streaming")
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="the text to continue")
    parser.add_argument(
        "--max-new-tokens", type=int, default=128, metavar="N",
        help="fewer where the text ends (default: 128)",
    )  # fmt: skip
    options.add_sampling_options(parser)
    options.add_model_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from ternops.commands.stream import stream
    from ternops.decoder.formats.loading import open_checkpoint

    checkpoint = open_checkpoint(arguments.model)
    tokenizer = checkpoint.tokenizer()
    config = checkpoint.config
    context = options.chosen_context(arguments, config, config.context)
    text = options.unmarked(arguments.prompt)
    prompt = options.encode_prompt(tokenizer, text, context)
    options.check_known("--prompt", tokenizer, prompt, config.vocabulary)
    model = options.load_model(arguments)
    session = options.start_session(model)
    answer = stream(
        model, tokenizer, prompt, text, session=session,
        max_new_tokens=arguments.max_new_tokens, **options.sampling(arguments),
    )  # fmt: skip
    print(f"[{answer.summary()}; {options.describe(model, session)}]", file=sys.stderr)
