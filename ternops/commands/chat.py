"""``python -m ternops chat``: a conversation, turn by turn."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import io
import sys
from typing import TYPE_CHECKING, Any

from ternops.commands import options

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from ternops.decoder.chat import ChatTemplate, Message


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "chat", help="talk to a model",
        description="Talk to a model: a line is a turn. Ctrl-C stops an answer; at the prompt, "
        "Ctrl-C or Ctrl-D ends the chat.",
    )  # fmt: skip
    parser.add_argument("--system", metavar="TEXT", help="what the model is told first")
    parser.add_argument(
        "--max-new-tokens", type=int, default=1024, metavar="N",
        help="of an answer (default: 1024)",
    )  # fmt: skip
    options.add_sampling_options(parser)
    options.add_model_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from ternops.commands.stream import stream
    from ternops.decoder.chat import ChatTemplate
    from ternops.decoder.formats.loading import open_checkpoint

    checkpoint = open_checkpoint(arguments.model)
    source = checkpoint.chat_template()
    if source is None:
        raise ValueError(
            f"--model {arguments.model or 'tiny'}: it has no chat template; generate continues a "
            "text without one"
        )
    config, tokenizer = checkpoint.config, checkpoint.tokenizer()
    context = options.chosen_context(arguments, config, config.context)
    template = ChatTemplate(source, checkpoint.special_tokens())
    messages: list[Message] = []
    if arguments.system is not None:
        system = options.unmarked(options.checked("--system", arguments.system))
        messages.append({"role": "system", "content": system})
    first = len(messages)
    model = options.load_model(arguments)
    session = options.start_session(model)
    if isinstance(sys.stdin, io.TextIOWrapper):
        # UTF-8 holds ASCII, and bytes that are no text reach `checked`.
        encoding = codecs.lookup(sys.stdin.encoding).name
        encoding = "utf-8" if encoding == "ascii" else encoding
        sys.stdin.reconfigure(encoding=encoding, errors="surrogateescape")
    code = 0
    while (turn := _next_turn()) is not None:
        try:
            content = options.checked("stdin", turn)
            asked = [*messages, {"role": "user", "content": content}]
            asked, prompt = _fitting(template, tokenizer, asked, first, context)
            options.check_known("chat template", tokenizer, prompt, config.vocabulary)
            answer = stream(
                model, tokenizer, prompt, session=session,
                max_new_tokens=arguments.max_new_tokens, **options.sampling(arguments),
            )  # fmt: skip
        except ValueError as error:
            options.note(f"error: {' '.join(str(error).splitlines())}")
            if not sys.stdin.isatty():  # a program learns of it when all else is answered
                code = 2
            continue
        messages = [*asked, {"role": "assistant", "content": answer.text}]
        figures = options.describe(model, session)
        print(f"[{answer.summary()}; {figures}]", file=sys.stderr, flush=True)
    return code


def _next_turn() -> str | None:
    """A line of stdin that is not blank; None at its end."""
    if sys.stdin is None:
        raise ValueError("stdin: closed, expected a line for each turn")
    asks = sys.stdin.isatty()
    if asks:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 (input() then edits lines and remembers them)
    while True:
        try:
            line = input("> " if asks else "")
        except EOFError:
            if asks:
                print()
            return None
        line = options.unmarked(line)
        if line.strip():
            return line.rstrip("\r")  # of files from Windows


def _fitting(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    messages: list[Message],
    first: int,
    context: int,
) -> tuple[list[Message], list[int]]:
    """The messages, without the oldest from `first` on if they are too many, and their tokens."""
    forgotten = 0
    while True:
        kept = messages[:first] + messages[first + forgotten :]
        # The template writes the special tokens itself.
        text = options.checked("chat template", template.render(kept))
        tokens: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        if not tokens:
            raise ValueError("chat template: made no text of the messages")
        if len(tokens) < context:
            break
        if len(kept) - first < 3:
            name = "--system and stdin" if first else "stdin"
            raise ValueError(f"{name}: a turn of {len(tokens)} tokens, the context holds {context}")
        forgotten += 2  # a question and its answer
    if forgotten:
        options.note(f"the context is full: the oldest {forgotten} messages are forgotten")
    return kept, tokens
