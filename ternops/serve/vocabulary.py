"""The tokens of a model as bytes and texts, for log-probabilities and for grammars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llguidance import LLTokenizer

from ternops.decoder.config import Config
from ternops.decoder.logprobs import Logprobs
from ternops.serve.answers import Likely, TokenLogprob

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: What OpenAI's API has for minus infinity, which JSON has not.
_LEAST = -9999.0


class Vocabulary:
    """What the tokens of a tokenizer stand for, to a model of that config.

    Raises ValueError for a tokenizer that llguidance does not read.
    """

    def __init__(self, tokenizer: Tokenizer, config: Config) -> None:
        self.ends = config.eos
        self._tokenizer = tokenizer
        most = max(config.vocabulary, *(number + 1 for number in tokenizer.get_vocab().values()))
        # Without an end token no text can be one of a grammar: `Constraints` refuses it.
        self.for_grammars = LLTokenizer(
            tokenizer.to_str(), n_vocab=most, eos_token=list(config.eos) or [0]
        )

    def is_special(self, token: int) -> bool:
        """Whether it is left out of texts."""
        return bool(self.for_grammars.is_special_token(token))

    def bytes_of(self, token: int) -> bytes:
        """Those of its text; a special token's are those of its name."""
        if self.is_special(token):
            return str(self._tokenizer.id_to_token(token) or "").encode()
        found: bytes = self.for_grammars.decode_bytes([token])
        return found

    def text_of(self, token: int) -> str:
        """Its text alone, which may be a part of a character only."""
        return self.bytes_of(token).decode("utf-8", "replace")

    def likely(self, token: int, logprob: float) -> Likely:
        """As chats have it."""
        data = self.bytes_of(token)
        text = data.decode("utf-8", "replace")
        return Likely(token=text, logprob=max(logprob, _LEAST), bytes=list(data))

    def chosen(self, token: int, logprobs: Logprobs) -> TokenLogprob:
        """A token that was chosen, beside the likeliest, as chats have it."""
        top = [self.likely(*each) for each in logprobs.top]
        return TokenLogprob(**self.likely(token, logprobs.token).model_dump(), top_logprobs=top)

    def by_text(self, chosen: int, logprobs: Logprobs) -> dict[str, float]:
        """The likeliest and the chosen one, as completions have them: of tokens with the same text
        the likelier."""
        found: dict[str, float] = {}
        for token, logprob in (*logprobs.top, (chosen, logprobs.token)):
            found.setdefault(self.text_of(token), max(logprob, _LEAST))
        return found
