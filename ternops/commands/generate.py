"""``python -m ternops generate``: continue a text."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ternops.commands import options
from ternops.commands.sampling import add_sampling_options, sampling


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("generate", help="continue a text, streaming")
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", metavar="TEXT", help="the text to continue (-: stdin)")
    prompt.add_argument("--prompt-file", metavar="FILE", help="the file that holds it, UTF-8")
    parser.add_argument(
        "--max-new-tokens", type=int, default=128, metavar="N",
        help="fewer where the text ends (default: 128)",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true",
        help="print one line of JSON at the end: text, token ids, times, finish reason",
    )  # fmt: skip
    options.add_control_option(parser)
    add_sampling_options(parser)
    options.add_model_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from ternops.commands.stream import stream
    from ternops.decoder.formats.loading import open_checkpoint
    from ternops.decoder.stops import StopStrings

    name, text = _prompt(arguments)
    StopStrings(arguments.stop)  # raises what there is to say of them
    checkpoint = open_checkpoint(arguments.model)
    tokenizer = checkpoint.tokenizer()
    config = checkpoint.config
    context = options.chosen_context(arguments, config, config.context)
    tokenizer.encode_special_tokens = arguments.no_control_tokens
    prompt = options.encode_prompt(tokenizer, text, context, name)
    tokenizer.encode_special_tokens = False
    options.check_known(name, tokenizer, prompt, config.vocabulary)
    settings = sampling(arguments, checkpoint)
    model = options.load_model(arguments)
    session = options.start_session(model)
    answer = stream(
        model, tokenizer, prompt, text, session=session, stops=arguments.stop,
        as_json=arguments.json, max_new_tokens=arguments.max_new_tokens, **settings,
    )  # fmt: skip
    print(f"[{answer.summary()}; {options.describe(model, session)}]", file=sys.stderr)


def _prompt(arguments: argparse.Namespace) -> tuple[str, str]:
    """The option that gives it, and the text."""
    if arguments.prompt_file is not None:
        return "--prompt-file", options.unmarked(
            options.read_text("--prompt-file", arguments.prompt_file)
        )
    text = arguments.prompt
    return "--prompt", options.unmarked(
        options.read_text("--prompt", "-") if text == "-" else options.checked("--prompt", text)
    )
