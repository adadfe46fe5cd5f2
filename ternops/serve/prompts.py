"""From what a request says to the tokens that the model reads."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ternops.decoder.chat import ChatTemplate
from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.literal import ChatEncoder
from ternops.decoder.text import encoded
from ternops.serve.errors import ApiError
from ternops.serve.requests import Message, Tool

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Prompts:
    """Makes tokens of texts and of messages, for a context of so many. For several threads."""

    def __init__(self, checkpoint: Checkpoint, context: int) -> None:
        self.tokenizer: Tokenizer = checkpoint.tokenizer()
        self.context = context
        self._vocabulary = checkpoint.config.vocabulary
        #: The source of the template for messages, None without one.
        self.source = checkpoint.chat_template()
        self._lock = threading.Lock()
        self._encoder: ChatEncoder | None = None
        if self.source is not None:
            template = ChatTemplate(self.source, checkpoint.special_tokens())
            # Who is asked writes text: control tokens are the template's.
            self._encoder = ChatEncoder(template, self.tokenizer, control_tokens=False)

    def of_text(self, text: str, param: str = "prompt") -> list[int]:
        """The tokens of a text, with those that the tokenizer adds."""
        return self.checked(encoded(self.tokenizer, text), param)

    def of_messages(self, messages: Sequence[Message], tools: Sequence[Tool] | None) -> list[int]:
        """Those of a chat, to the beginning of the answer."""
        if self._encoder is None:
            raise ApiError(
                400, "messages: the model has no chat template, expected /v1/completions",
                "messages",
            )  # fmt: skip
        if tools and "tools" not in (self.source or ""):
            raise ApiError(400, "tools: the chat template of the model knows none", "tools")
        given = [tool.model_dump(exclude_none=True) for tool in tools] if tools else None
        read = [_for_template(each) for each in messages]
        try:
            with self._lock:
                found = self._encoder(read, given)
        except ValueError as error:
            raise ApiError(400, str(error), "messages") from None
        return self.checked(found, "messages")

    def checked(self, tokens: Sequence[int], param: str) -> list[int]:
        """The tokens, or ApiError 400 if the model cannot read them."""
        if not tokens:
            raise ApiError(400, f"{param}: has no tokens, expected at least one", param)
        if len(tokens) > self.context:
            raise ApiError(
                400, f"{param}: {len(tokens)} tokens, expected at most the context of "
                f"{self.context}", param, "context_length_exceeded",
            )  # fmt: skip
        if max(tokens) >= self._vocabulary:
            raise ApiError(
                400, f"{param}: {max(tokens)} is to the model no token, expected 0 to "
                f"{self._vocabulary - 1}", param,
            )  # fmt: skip
        return list(tokens)


def _for_template(message: Message) -> dict[str, Any]:
    """A message as templates expect it: arguments of calls as an object."""
    found: dict[str, Any] = {"role": message.role, "content": message.text or ""}
    if message.role == "developer":
        found["role"] = "system"
    if message.name is not None:
        found["name"] = message.name
    if message.tool_call_id is not None:
        found["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        found["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.function.name,
                    "arguments": _object(call.function.arguments),
                },
            }
            for call in message.tool_calls
        ]
    return found


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ApiError(400, "tool_calls: arguments that are no JSON object", "messages")
    return found
