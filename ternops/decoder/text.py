"""Between text and tokens: the tokenizer of a folder, and text from tokens as they come."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ternops.decoder.formats import tokenizer_config
from ternops.decoder.formats.tokenizer_classes import CLASSES
from ternops.shown import in_line

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that transformers 5 makes of a Hugging Face folder with a tokenizer.json.

    A warning says what it would do and this does not. Raises ModuleNotFoundError without the
    tokenizers package, FileNotFoundError or ValueError for a file that is missing or damaged.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"model: {str(folder)!r} has no tokenizer.json")
    data, source = path.read_bytes(), f"model: {str(path)!r}"
    tokenizer = parse_tokenizer(data, source)
    settings = tokenizer_config.read_settings(folder)
    kind = CLASSES.get(settings.kind)
    if kind and kind.fits(settings.file):
        made = json.dumps(kind.rebuild(settings.file, settings.raw))
        tokenizer = parse_tokenizer(made.encode(), source)
    _add_tokens(tokenizer, settings)
    for line in tokenizer_config.not_done(settings):
        _warn(f"{str(folder)!r}: {line}")
    return tokenizer


def parse_tokenizer(data: bytes, source: str) -> Tokenizer:
    """A tokenizer from the bytes of a tokenizer.json; `source` says in errors where they are from.

    It neither cuts off nor fills up a text, whatever it was trained with: a model reads all of it.
    Raises ModuleNotFoundError without the tokenizers package, ValueError for damaged bytes.
    """
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "tokenizers is not installed: pip install 'ternops[llm]'"
        ) from None
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # the package raises nothing narrower
        raise ValueError(f"{source} is no tokenizer: {in_line(error)}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encoded(tokenizer: Tokenizer, text: str, add_special_tokens: bool = True) -> list[int]:
    """The tokens of a text. Other Python threads run meanwhile, as they do not beside `encode`: for
    megabytes that is seconds."""
    found = tokenizer.encode_batch([text], add_special_tokens=add_special_tokens)
    tokens: list[int] = found[0].ids
    return tokens


def _add_tokens(tokenizer: Tokenizer, settings: tokenizer_config.Settings) -> None:
    from tokenizers import AddedToken

    tokens = [AddedToken(**token) for token in settings.tokens()]
    # One that was special once stays it when it is added again, though not for `to_str`.
    present = tokenizer.get_added_tokens_decoder().values()
    special = {token.content for token in (*present, *tokens) if token.special}
    for token in tokens:
        token.special = token.content in special
    tokenizer.add_tokens(tokens)
    for number, numbered in settings.numbered.items():
        found = tokenizer.token_to_id(numbered["content"])
        if found != number:
            _warn(f"{numbered['content']!r} is token {found}, not {number} as its files say")
            return


def _warn(line: str) -> None:
    warnings.warn(f"tokenizer: {line}", stacklevel=1)


#: The most bytes of a character, and so the most byte-level tokens of an incomplete one.
_CHARACTER = 4


class TextDecoder:
    """Text from tokens as they come: decodes a window of the last ones and returns what is new.

    Joined it is what `tokenizer.decode` makes of all tokens, special ones left out.
    prompt: tokens before, whose text the new one depends on and does not repeat.

    That is exact where the text of a token depends on no more than the one before it, as with all
    decoders that language models have: a byte-level one, where characters may be spread over
    tokens, and those that join texts of tokens. There a run of byte tokens is decoded as a whole,
    to U+FFFD if anything in it is no UTF-8, and has to be waited for. With any other decoder the
    text comes at the end.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: list[int]) -> None:
        self._tokenizer = tokenizer
        steps = _steps(tokenizer)
        kinds = [step["type"] for step in steps]
        self._bytes, self._byte_tokens = "ByteLevel" in kinds, "ByteFallback" in kinds
        self._waits = not _is_local(steps)
        added = tokenizer.get_added_tokens_decoder()
        self._special = {number for number, token in added.items() if token.special}
        self._window = self._context([token for token in prompt if self._is_text(token)])
        self._shown = len(self._text(self._window))

    def push(self, token: int) -> str:
        """The text that is whole with this token."""
        if not self._is_text(token):
            return ""
        self._window.append(token)
        if self._waits or self._is_byte(token):
            return ""
        text = self._text(self._window)
        whole = len(text) - (self._bytes and text.endswith("\ufffd"))
        new = text[self._shown : whole]
        if whole < len(text):
            self._shown = whole
            if len(self._window) > 2 * _CHARACTER:
                self._window = self._window[-_CHARACTER:]
                self._shown = len(self._text(self._window)) - 1
        elif len(text) == self._shown and self._is_nothing(token):
            self._window.pop()
        else:
            self._window = self._context(self._window)
            self._shown = len(self._text(self._window))
        return new

    def end(self) -> str:
        """The text that was held back."""
        return self._text(self._window)[self._shown :]

    def _context(self, tokens: list[int]) -> list[int]:
        """The last of the tokens, whose text is known: as many as what comes next depends on.

        A text must be among them, since a decoder may strip the blanks that all text begins with.
        """
        if self._waits:
            return tokens
        starts = range(len(tokens) - 1, 0, -1)
        return next(
            (tokens[at:] for at in starts
             if not self._is_byte(tokens[at]) and self._text(tokens[at:])), tokens
        )  # fmt: skip

    def _text(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens) if tokens else ""  # some decoders need one
        return text

    def _is_text(self, token: int) -> bool:
        """Whether `decode` makes anything of it."""
        if token in self._special:
            return False
        text = self._tokenizer.id_to_token(token)
        return text is not None and not (self._bytes and text == "")

    def _is_nothing(self, token: int) -> bool:
        """Whether the last of the window, which is no text, changes none to come.

        It does if it parts bytes, or may be a blank that is stripped with no text before it.
        """
        parts = len(self._window) < 2 or self._is_byte(self._window[-2])
        return not parts and bool(self._shown or not self._tokenizer.id_to_token(token))

    def _is_byte(self, token: int) -> bool:
        """Whether it is like <0x0A>, in a vocabulary where that is a byte."""
        text = (self._byte_tokens and self._tokenizer.id_to_token(token)) or ""
        return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _steps(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The decoders that work one after another, as in tokenizer.json."""
    if tokenizer.decoder is None:
        return []
    step = json.loads(tokenizer.decoder.__getstate__())
    return _flat(step)


def _flat(step: dict[str, Any]) -> list[dict[str, Any]]:
    if step["type"] != "Sequence":
        return [step]
    return [each for part in step["decoders"] for each in _flat(part)]


def _is_local(steps: list[dict[str, Any]]) -> bool:
    """Whether the text of a token depends on the one before it alone, runs of bytes apart."""
    kinds = [step["type"] for step in steps]
    join = next((at for at, kind in enumerate(kinds) if kind in _JOINING), len(kinds))
    # What is behind works on one text, whose beginning is settled, whose end is not.
    behind = all(step["type"] == "Strip" and step["stop"] == 0 for step in steps[join + 1 :])
    return behind and set(kinds[:join]) <= _SINGLE and len(_BYTES & set(kinds)) < 2


_JOINING = ("Fuse", "ByteLevel")
#: Decoders that work on each token's text, which they may tell from the first one's.
_SINGLE = {"Replace", "Strip", "Metaspace", "WordPiece", "ByteFallback"}
_BYTES = {"ByteLevel", "ByteFallback"}
