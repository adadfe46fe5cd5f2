"""From texts to tokens for embeddings, as the files of a model say."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.formats.pooling import Pooling

if TYPE_CHECKING:
    from tokenizers import Tokenizer


# What cuts off texts is set in a tokenizer, which several threads may use.
_LOCK = threading.Lock()


class Texts:
    """The tokenizer of a model and how its texts are embedded. It can be pickled.

    Raises ValueError for a pooling that is not computed here, and what `Checkpoint.tokenizer` does.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.pooling: Pooling = checkpoint.pooling()
        self.pooling.check()
        if not self.pooling.source and not checkpoint.config.inner_norms:
            warnings.warn(
                "model: no modules.json says how to embed texts: the last token's hidden state is "
                "taken, as of BitNet's embedding models",
                stacklevel=2,
            )
        self.tokenizer: Tokenizer = checkpoint.tokenizer()
        self._vocabulary = checkpoint.config.vocabulary

    def prompt(self, name: str | None) -> str:
        """The text of a named prompt, or of the one without asking; ValueError for no such name."""
        prompts = self.pooling.prompts
        name = name if name is not None else self.pooling.prompt
        if name is not None and name not in prompts:
            raise ValueError(
                f"prompt_name={name!r}: expected one of {', '.join(map(repr, prompts)) or 'none'}"
            )
        return "" if name is None else prompts[name]

    def tokens(
        self, texts: Sequence[str], prompt: str, most: int, truncate: bool, name: str = "texts"
    ) -> TokenizedTexts:
        """The tokens of texts behind a prompt, with those that the tokenizer adds.

        most: the context. truncate: cut off what is beyond the most tokens; without, it is a
        ValueError, as a text of no tokens is, or one with a token that the model has not. name: of
        the texts in errors.
        """
        most = min(most, self.pooling.max_tokens or most)
        lower = str.lower if self.pooling.lowers else str
        with _LOCK:
            if truncate:
                self.tokenizer.enable_truncation(most)
            try:
                encoded = self.tokenizer.encode_batch([lower(prompt + text) for text in texts])
            finally:
                self.tokenizer.no_truncation()
        found = [each.ids for each in encoded]
        for number, ids in enumerate(found):
            if not ids:
                raise ValueError(
                    f"{name}[{number}]: {texts[number]!r} has no tokens, expected some"
                )
            if len(ids) > most:
                raise ValueError(f"{name}[{number}]: {len(ids)} tokens, expected at most {most}")
            if max(ids) >= self._vocabulary:
                text = self.tokenizer.id_to_token(max(ids))
                raise ValueError(
                    f"{name}[{number}]: {text!r} is {max(ids)} and to the model no token, expected "
                    f"0 to {self._vocabulary - 1}"
                )
        skipped = 0 if self.pooling.includes_prompt or not prompt else self._length(lower(prompt))
        for number, ids in enumerate(found):
            if len(ids) <= skipped:
                raise ValueError(
                    f"{name}[{number}]: {len(ids)} tokens with the prompt, expected more than its "
                    f"{skipped}, which the mean leaves out"
                )
        return TokenizedTexts(found, skipped)

    def _length(self, prompt: str) -> int:
        """Tokens of a prompt, without a special one at the end (as sentence-transformers counts)"""
        encoded = self.tokenizer.encode(prompt)
        special = encoded.special_tokens_mask
        return len(encoded.ids) - bool(special and special[-1])


class TokenizedTexts(NamedTuple):
    """skipped: how many first tokens of each text a mean leaves out."""

    ids: list[list[int]]
    skipped: int


def check_texts(texts: Sequence[str], name: str = "texts") -> list[str]:
    """A sequence of strings as a list; raises TypeError or ValueError if it is not one."""
    if isinstance(texts, str | bytes):
        raise TypeError(f"{name}: {type(texts).__name__}, expected a list of strings")
    try:
        found = list(texts)
    except TypeError:
        raise TypeError(f"{name}: {type(texts).__name__}, expected a list of strings") from None
    for number, text in enumerate(found):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{number}]: {type(text).__name__}, expected a string")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{name}[{number}]: not Unicode at character {error.start}") from None
    return found
