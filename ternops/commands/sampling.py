"""Options of how the next token is chosen, guessed, and where an answer stops."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from ternops.commands.options import progress

if TYPE_CHECKING:
    from ternops.decoder.formats.checkpoint import Checkpoint

#: Options with a number that `Sampling` names, as type and help.
_NUMBERS: dict[str, tuple[type, str, str]] = {
    "temperature": (float, "T", "0 is greedy"),
    "top_p": (float, "P", "sample from the likeliest tokens that reach this probability; 1 is all"),
    "top_k": (int, "K", "sample from the K likeliest tokens; 0 is all"),
    "min_p": (float, "P", "sample from tokens at least P times as likely as the likeliest"),
    "repetition_penalty": (
        float, "X", "divide the logits of tokens of the prompt and of the text so far; 1 is none",
    ),
    "presence_penalty": (float, "X", "subtract X from the logit of each token generated so far"),
    "frequency_penalty": (
        float, "X", "subtract X from the logit of a token each time that it is generated",
    ),
    "seed": (int, "N", "the same one, the same text"),
}  # fmt: skip


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """How the next token is chosen, and where a text stops."""
    group = parser.add_argument_group(
        "sampling", "what is not given is as the model's files recommend, or greedy"
    )
    for name, (kind, letter, text) in _NUMBERS.items():
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=letter, help=text)
    group.add_argument(
        "--logit-bias", type=_biased_token, action="append", default=[], metavar="TOKEN=X",
        help="add X to the logit of a token, given by its number; -inf rules it out",
    )  # fmt: skip
    group.add_argument(
        "--stop", action="append", default=[], metavar="TEXT",
        help="end where this text would come, which is left out; several can be given",
    )  # fmt: skip
    guesses = parser.add_argument_group("guesses", "the text is the same, sooner")
    guesses.add_argument(
        "--prompt-lookup", type=int, default=0, metavar="N",
        help="guess up to N tokens from the text so far (default: 0)",
    )  # fmt: skip
    guesses.add_argument(
        "--draft-model", metavar="MODEL", help="let a smaller model with the same tokens guess"
    )
    guesses.add_argument(
        "--draft-tokens", type=int, default=4, metavar="N", help="as many at a time (default: 4)"
    )


def _biased_token(text: str) -> tuple[int, float]:
    """TOKEN=X of --logit-bias."""
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a number=a bias") from None


def sampling(arguments: argparse.Namespace, checkpoint: Checkpoint) -> dict[str, Any]:
    """Those options as `Model.generate` takes them, the draft model loaded.

    Raises ValueError for a setting that is out of range.
    """
    for name, least in (("max_new_tokens", 0), ("prompt_lookup", 0), ("draft_tokens", 1)):
        if getattr(arguments, name) < least:  # before a model is loaded
            raise ValueError(f"{name}={getattr(arguments, name)}: expected {least} or more")
    given = {name: getattr(arguments, name) for name in _NUMBERS}
    given = {name: value for name, value in given.items() if value is not None}
    if arguments.logit_bias:
        given["logit_bias"] = dict(arguments.logit_bias)
    chosen = dataclasses.replace(checkpoint.sampling(), **given)
    chosen.check_vocabulary(checkpoint.config.vocabulary)
    return {
        **{field.name: getattr(chosen, field.name) for field in dataclasses.fields(chosen)},
        "prompt_lookup": arguments.prompt_lookup,
        "draft_model": _draft_session(arguments),
        "draft_tokens": arguments.draft_tokens,
    }


def _draft_session(arguments: argparse.Namespace) -> Any:
    """A session, so that what it has read is not read again at the next turn."""
    from ternops.decoder.model import Model, Session

    if arguments.draft_model is None:
        return None
    if arguments.prompt_lookup:
        raise ValueError(
            f"--prompt-lookup {arguments.prompt_lookup}: expected 0 with --draft-model"
        )
    with progress("loading the draft model") as show:
        return Session(
            Model.from_pretrained(arguments.draft_model, threads=arguments.threads, progress=show)
        )
