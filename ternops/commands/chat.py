"""``python -m ternops chat``: a conversation, turn by turn."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from ternops.commands import options
from ternops.commands.sampling import add_sampling_options, sampling

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from ternops.decoder.chat import Message
    from ternops.decoder.literal import ChatEncoder
    from ternops.decoder.model import Model, Session


#: What can be typed.
_HELP = (
    'A line is a turn, or all lines between two of three double quotes, """. /save FILE keeps the '
    "conversation with its cache, /load FILE goes on with one at once, /help says this, /exit, "
    "Ctrl-C or Ctrl-D at the prompt end the chat."
)


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "chat", help="talk to a model",
        description=f"Talk to a model. {_HELP} Where the context is full the oldest turns are "
        "forgotten. Ctrl-C stops an answer.",
    )  # fmt: skip
    parser.add_argument("--system", metavar="TEXT", help="what the model is told first")
    parser.add_argument(
        "--max-new-tokens", type=int, default=1024, metavar="N",
        help="of an answer (default: 1024)",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true",
        help="print a line of JSON for each answer: text, token ids, times, finish reason",
    )  # fmt: skip
    options.add_control_option(parser)
    add_sampling_options(parser)
    options.add_model_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from ternops.commands.turns import read_turns
    from ternops.decoder.chat import ChatTemplate
    from ternops.decoder.formats.loading import open_checkpoint
    from ternops.decoder.literal import ChatEncoder
    from ternops.decoder.stops import StopStrings

    StopStrings(arguments.stop)  # raises what there is to say of them
    checkpoint = open_checkpoint(arguments.model)
    source = checkpoint.chat_template()
    if source is None:
        raise ValueError(
            f"--model {arguments.model or 'tiny'}: it has no chat template; generate continues a "
            "text without one"
        )
    tokenizer = checkpoint.tokenizer()
    context = options.chosen_context(arguments, checkpoint.config, checkpoint.config.context)
    template = ChatTemplate(source, checkpoint.special_tokens())
    encoder = ChatEncoder(template, tokenizer, not arguments.no_control_tokens)
    messages: list[Message] = []
    if arguments.system is not None:
        system = options.unmarked(options.checked("--system", arguments.system))
        messages.append({"role": "system", "content": system})
    settings = sampling(arguments, checkpoint)
    settings |= {"max_new_tokens": arguments.max_new_tokens, "as_json": arguments.json}
    settings["stops"] = arguments.stop
    model = options.load_model(arguments)
    talk = _Conversation(model, tokenizer, encoder, context, messages, settings)
    code = 0
    for turn in read_turns():
        try:
            if turn.command:
                talk.obey(turn.command, turn.text)
            else:
                talk.answer(options.checked("stdin", turn.text))
        except BrokenPipeError:  # nobody reads the next answers, either
            raise
        except (ValueError, OSError) as error:
            options.note(f"error: {' '.join(str(error).splitlines())}")
            if not sys.stdin.isatty():  # a program learns of it when all else is answered
                code = 2
    return code


class _Conversation:
    """Messages and the session that holds them.

    messages: those that are there from the beginning and never forgotten. settings: of `stream`.
    """

    def __init__(
        self, model: Model, tokenizer: Tokenizer, encoder: ChatEncoder, context: int,
        messages: list[Message], settings: dict[str, Any],
    ) -> None:  # fmt: skip
        self._model, self._tokenizer, self._encoder = model, tokenizer, encoder
        self._context, self._settings = context, settings
        self._messages, self._first = messages, len(messages)
        self._session: Session = options.start_session(model)

    def answer(self, content: str) -> None:
        """Answer a turn; one that raises ValueError does not count."""
        from ternops.commands.stream import stream

        asked = [*self._messages, {"role": "user", "content": content}]
        asked, prompt = self._fitting(asked)
        vocabulary = self._model.config.vocabulary
        options.check_known("chat template", self._tokenizer, prompt, vocabulary)
        answer = stream(
            self._model, self._tokenizer, prompt, session=self._session, **self._settings
        )
        self._messages = [*asked, {"role": "assistant", "content": answer.text}]
        figures = options.describe(self._model, self._session)
        print(f"[{answer.summary()}; {figures}]", file=sys.stderr, flush=True)
        if answer.fills_context:
            options.note(
                "the context is full: the answer ends here, a next turn forgets the oldest"
            )

    def obey(self, command: str, path: str) -> None:
        """/help, or /save or /load of a file."""
        if command == "help":
            options.note(_HELP)
            return

        from ternops.decoder.session_file import load_session, save_session

        if not path:
            raise ValueError(f"/{command}: expected the name of a file behind it")
        if command == "save":
            try:
                save_session(self._session, path, self._messages)
            except OSError as error:
                raise OSError(f"/save: {path!r}: {error.strerror or error}") from None
            options.note(f"/save: {path}, {self._session.position} tokens")
            return
        messages = load_session(self._session, path)
        self._messages = messages
        self._first = int(bool(messages) and messages[0]["role"] == "system")
        options.note(f"/load: {path}, {len(messages)} messages, {self._session.position} tokens")

    def _fitting(self, messages: list[Message]) -> tuple[list[Message], list[int]]:
        """The messages, without the oldest but for the first ones if they are too many, and their
        tokens."""
        first, forgotten = self._first, 0
        while True:
            kept = messages[:first] + messages[first + forgotten :]
            tokens = self._encoder(kept)
            if not tokens:
                raise ValueError("chat template: made no text of the messages")
            if len(tokens) < self._context:
                break
            if len(kept) - first < 3:
                name = "--system and stdin" if first else "stdin"
                raise ValueError(
                    f"{name}: a turn of {len(tokens)} tokens, the context holds {self._context}"
                )
            forgotten += 2  # a question and its answer
        if forgotten:
            options.note(f"the context is full: the oldest {forgotten} messages are forgotten")
        return kept, tokens
