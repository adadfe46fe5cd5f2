"""Texts in which the names of control tokens are text like any other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ternops.decoder.chat import ChatTemplate, Message
from ternops.decoder.text import encoded, parse_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Private-use characters, which no tokenizer has a token with and no text is likely to hold: around
#: the number of a control token whose name is text, and around that of one which is meant.
_TEXT, _CONTROL = ("\U000f5700", "\U000f5701"), ("\U000f5702", "\U000f5703")


class ChatEncoder:
    """From the messages of a chat to tokens, by a template.

    control_tokens: whether the names of control tokens in messages are these tokens; if not, only
    what the template writes itself is. Messages without such names give the same tokens in both
    ways. Not for two threads at a time.
    """

    def __init__(
        self, template: ChatTemplate, tokenizer: Tokenizer, control_tokens: bool = True
    ) -> None:
        self._template, self._tokenizer = template, tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._added = {token.content: number for number, token in added.items()}
        special = {token.content: number for number, token in added.items() if token.special}
        self._special = {} if control_tokens else special
        # The longest first: some are the beginning of others.
        names = sorted(self._special, key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, names)) or "(?!)")
        self._renamed: Tokenizer | None = None

    def __call__(
        self, messages: Sequence[Message], tools: list[dict[str, Any]] | None = None
    ) -> list[int]:
        """The tokens of the messages and of the beginning of the answer to them. Arguments as
        `ChatTemplate.render`.

        Raises ValueError if the template refuses the messages, or makes no Unicode of them, and
        for U+F5700 to U+F5703 beside names of control tokens that are text.
        """
        given = {"messages": list(messages), "tools": tools}
        # What the template has of a message is told from what it writes by marks for each name.
        marked = _replaced(given, lambda text: self._names.sub(self._mark, text))
        if marked == given:
            return self._encode(self._tokenizer, self._template.render(list(messages), tools))
        _replaced(given, _check_marks)
        text = self._template.render(marked["messages"], marked["tools"])
        text = self._names.sub(lambda name: self._new_name(name[0]), text)
        for name, number in self._special.items():
            text = text.replace(str(number).join(_TEXT), name)
        if self._renamed is None:
            self._renamed = self._rename()
        # Those with other names have other numbers, and so may all that were added.
        number_of = {
            self._renamed.token_to_id(self._new_name(name) if name in self._special else name): each
            for name, each in self._added.items()
        }
        tokens = self._encode(self._renamed, text)
        return [number_of.get(token, token) for token in tokens]

    def _mark(self, name: re.Match[str]) -> str:
        return str(self._special[name[0]]).join(_TEXT)

    def _new_name(self, name: str) -> str:
        return str(self._special[name]).join(_CONTROL)

    def _rename(self) -> Tokenizer:
        """The tokenizer with other names of its control tokens, whose old names are then text."""
        file = json.loads(self._tokenizer.to_str())
        for token in file["added_tokens"]:
            if token["content"] in self._special:
                token["content"] = self._new_name(token["content"])
        return parse_tokenizer(json.dumps(file).encode(), "tokenizer: with other names")

    @staticmethod
    def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"chat template: not UTF-8 at character {error.start}") from None
        # The template writes the tokens that begin and end a text itself.
        return encoded(tokenizer, text, add_special_tokens=False)


def _replaced(value: Any, change: Callable[[str], str]) -> Any:
    """A value as of JSON with all its strings but keys changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _replaced(each, change) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, change) for each in value]
    return value


def _check_marks(text: str) -> str:
    if set(text) & {*_TEXT, *_CONTROL}:
        raise ValueError("messages: U+F5700 to U+F5703, expected other characters")
    return text
