"""The tokenizer of a GGUF file's metadata, built with the tokenizers package.

The keys are those of ggml-org/ggml, docs/gguf.md; what their values mean is what ggml-org/llama.cpp
makes of them (src/llama-vocab.cpp).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ternops.shown import shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Metadata = dict[str, Any]

TOKENS = "tokenizer.ggml.tokens"
MERGES = "tokenizer.ggml.merges"
_SPACE = "\u2581"  # what SentencePiece writes for a space
#: Types of tokens.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

#: The keys of special tokens, by the names that chat templates have for them.
NAMES = {
    "bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "sep_token": "seperator",
    "pad_token": "padding", "cls_token": "cls", "mask_token": "mask",
}  # fmt: skip

#: Control tokens that end a text or a turn. Files of chat models name only one of them.
_END_TEXTS = (
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|end_of_text|>",
    "<|endoftext|>",
)  # fmt: skip

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class _Split:
    """How text is cut before its merges: by one pattern after another.

    whole_words: a piece that is a token is that token, whatever the merges say; bos: whether the
    begin token is added if the file does not say; composed: whether characters are composed
    first (NFC), which llama.cpp leaves out and the tokenizer's authors do.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    bos: bool = False
    composed: bool = False


_LIKE_LLAMA3 = _Split((_LLAMA3,), whole_words=True, bos=True)
SPLITS = {
    "llama-bpe": _LIKE_LLAMA3,
    "llama3": _LIKE_LLAMA3,
    "llama-v3": _LIKE_LLAMA3,
    "falcon3": _LIKE_LLAMA3,
    "falcon_e": _LIKE_LLAMA3,
    "qwen2": _Split((_LLAMA3.replace("{1,3}", ""),), composed=True),
    "qwen35": _Split((_QWEN35,), composed=True),
    "smollm": _Split((r"\p{N}", _GPT2)),
    "gpt-2": _Split((_GPT2,)),
    "default": _Split((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
}

#: A token of LLaMA 3 and its number, which identify its vocabulary.
_LLAMA3_BEGIN = (128000, "<|begin_of_text|>")


def build_tokenizer(metadata: Metadata) -> Tokenizer:
    """The tokenizer of a file that has tokens.

    Raises ModuleNotFoundError without the tokenizers package and ValueError, naming the key, for
    what is damaged or of another kind.
    """
    try:
        import tokenizers  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "tokenizers is not installed: pip install 'ternops[llm]'"
        ) from None
    makers = {"gpt2": _byte_level, "llama": _sentence_piece}
    kind = metadata.get("tokenizer.ggml.model")
    if not isinstance(kind, str) or kind not in makers:
        raise ValueError(f"tokenizer.ggml.model is {shown(kind)}, expected {' or '.join(makers)}")
    return makers[kind](metadata, _Vocabulary(metadata))


def special_tokens(metadata: Metadata) -> dict[str, str]:
    """The texts of "bos_token", "eos_token" and others, each where there is one."""
    tokens = _strings(metadata, TOKENS) if TOKENS in metadata else []
    found = {name: _token_id(metadata, key, tokens) for name, key in NAMES.items()}
    return {name: tokens[at] for name, at in found.items() if tokens and at is not None}


def end_tokens(metadata: Metadata) -> tuple[int, ...]:
    """The tokens that end a text or a turn."""
    tokens = _strings(metadata, TOKENS) if TOKENS in metadata else []
    ends = [_token_id(metadata, name, tokens) for name in ("eos", "eot", "eom")]
    control = set(np.flatnonzero(_kinds(metadata, tokens) == CONTROL).tolist())
    ends += [at for at in sorted(control) if tokens[at] in _END_TEXTS]
    return tuple(dict.fromkeys(end for end in ends if end is not None))


class _Vocabulary:
    """tokens: the texts in their order; ids: their numbers; kinds: their types."""

    def __init__(self, metadata: Metadata) -> None:
        self.tokens = _strings(metadata, TOKENS)
        self.ids = {token: at for at, token in enumerate(self.tokens)}
        if len(self.ids) != len(self.tokens):
            twice = next(token for at, token in enumerate(self.tokens) if self.ids[token] != at)
            raise ValueError(f"{TOKENS}: {shown(twice)} occurs twice")
        self.kinds = _kinds(metadata, self.tokens)
        self.bos, self.eos, self.unknown = (
            _token_id(metadata, name, self.tokens) for name in ("bos", "eos", "unknown")
        )
        if self.unknown is None and (self.kinds == UNKNOWN).any():
            self.unknown = int(np.argmax(self.kinds == UNKNOWN))

    def finish(self, tokenizer: Tokenizer, metadata: Metadata, bos: bool) -> Tokenizer:
        """Tell it which tokens stand for themselves in a text, and which begin and end one.

        bos: whether the begin token is added if the file does not say.
        """
        from tokenizers import AddedToken
        from tokenizers.processors import TemplateProcessing

        special = set(np.flatnonzero(np.isin(self.kinds, (UNKNOWN, CONTROL))).tolist())
        special |= {at for at in (self.bos, self.eos, self.unknown) if at is not None}
        others = set(np.flatnonzero(self.kinds == USER_DEFINED).tolist()) - special
        for add, numbers in ((tokenizer.add_special_tokens, special),
                             (tokenizer.add_tokens, others)):  # fmt: skip
            add([AddedToken(self.tokens[at], normalized=False) for at in sorted(numbers)])
        ends = {
            name: at
            for name, at, wanted in (("bos", self.bos, bos), ("eos", self.eos, False))
            if _flag(metadata, f"tokenizer.ggml.add_{name}_token", wanted) and at is not None
        }
        if ends:
            tokenizer.post_processor = TemplateProcessing(
                single=[each for each in ("bos", "$A", "eos") if each == "$A" or each in ends],
                special_tokens=[
                    {"id": name, "ids": [at], "tokens": [self.tokens[at]]}
                    for name, at in ends.items()
                ],
            )
        return tokenizer


def _byte_level(metadata: Metadata, vocabulary: _Vocabulary) -> Tokenizer:
    """Byte-level BPE, as of GPT-2."""
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    split = _split(metadata, vocabulary.tokens)
    texts = _strings(metadata, MERGES)
    if bad := [text for text in texts if text.count(" ") != 1]:
        raise ValueError(f"{MERGES}: {shown(bad[0])}, expected two parts")
    merges = [(left, right) for left, _, right in (text.partition(" ") for text in texts)]
    try:
        model = BPE(vocabulary.ids, merges, ignore_merges=split.whole_words)
    except Exception as error:  # the package raises nothing narrower
        raise ValueError(f"{MERGES}: {error}") from None
    tokenizer = Tokenizer(model)
    if split.composed:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(each), "isolated") for each in split.patterns),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return vocabulary.finish(tokenizer, metadata, split.bos)


def _sentence_piece(metadata: Metadata, vocabulary: _Vocabulary) -> Tokenizer:
    """SentencePiece's BPE, as of LLaMA 2: the pair that makes the token of the best score is
    merged first; what is no token becomes the tokens of its bytes."""
    from tokenizers import Tokenizer, decoders, normalizers
    from tokenizers.models import BPE

    unknown = None if vocabulary.unknown is None else vocabulary.tokens[vocabulary.unknown]
    model = BPE(
        vocabulary.ids, _scored_merges(metadata, vocabulary), unk_token=unknown, fuse_unk=True,
        byte_fallback=True,
    )  # fmt: skip
    tokenizer = Tokenizer(model)
    prefixed = _flag(metadata, "tokenizer.ggml.add_space_prefix", True)
    spaces, plain = normalizers.Replace(" ", _SPACE), decoders.Replace(_SPACE, " ")
    tokenizer.normalizer = (
        normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if prefixed else spaces
    )
    strip = [decoders.Strip(" ", 1, 0)] if prefixed else []
    tokenizer.decoder = decoders.Sequence([plain, decoders.ByteFallback(), decoders.Fuse(), *strip])
    return vocabulary.finish(tokenizer, metadata, bos=True)


def _scored_merges(metadata: Metadata, vocabulary: _Vocabulary) -> list[tuple[str, str]]:
    """All pairs of tokens that make another, in the order of its score."""
    scores = metadata.get("tokenizer.ggml.scores")
    count = len(vocabulary.tokens)
    if not isinstance(scores, np.ndarray) or len(scores) != count or np.isnan(scores).any():
        raise ValueError(f"tokenizer.ggml.scores: expected {count} numbers, one a token")
    normal = np.flatnonzero(vocabulary.kinds == NORMAL).tolist()
    ids = {vocabulary.tokens[at]: at for at in normal}
    merges = []
    for token, at in ids.items():
        for cut in range(1, len(token)):
            left, right = ids.get(token[:cut]), ids.get(token[cut:])
            if left is not None and right is not None:
                merges.append((-float(scores[at]), at, left, right))
    tokens = vocabulary.tokens
    return [(tokens[left], tokens[right]) for _, _, left, right in sorted(merges)]


def _split(metadata: Metadata, tokens: list[str]) -> _Split:
    name = metadata.get("tokenizer.ggml.pre")
    if name is None:
        # The published files of BitNet b1.58 2B4T lack the key. Theirs is LLaMA 3's tokenizer.
        at, begin = _LLAMA3_BEGIN
        name = "llama-bpe" if tokens[at : at + 1] == [begin] else "default"
    if not isinstance(name, str) or name not in SPLITS:
        raise ValueError(
            f"tokenizer.ggml.pre is {shown(name)}, expected one of {', '.join(SPLITS)}"
        )
    return SPLITS[name]


def _strings(metadata: Metadata, key: str) -> list[str]:
    values = metadata.get(key)
    if values is None:
        raise ValueError(f"{key} is missing")
    if not isinstance(values, list):
        raise ValueError(f"{key} is {shown(values)}, expected an array of strings")
    return values


def _kinds(metadata: Metadata, tokens: list[str]) -> npt.NDArray[Any]:
    """The type of each token; all are normal if the file does not say."""
    key = "tokenizer.ggml.token_type"
    kinds = metadata.get(key)
    if kinds is None:
        return np.full(len(tokens), NORMAL)
    if not isinstance(kinds, np.ndarray) or len(kinds) != len(tokens):
        raise ValueError(f"{key}: expected {len(tokens)} numbers, one a token")
    return kinds


def _token_id(metadata: Metadata, name: str, tokens: list[str]) -> int | None:
    """None without the key; also, with a warning, for a number that no token has."""
    key = f"tokenizer.ggml.{name}_token_id"
    value = metadata.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{key} is {shown(value)}, expected a token's number")
    if value < 0 or (tokens and value >= len(tokens)):
        most = f" to {len(tokens) - 1}" if tokens else " or more"
        warnings.warn(f"{key} is {value}, expected 0{most}: there is no such token", stacklevel=1)
        return None
    return value


def _flag(metadata: Metadata, key: str, default: bool) -> bool:
    value = metadata.get(key, default)
    if not isinstance(value, bool):
        raise ValueError(f"{key} is {shown(value)}, expected a bool")
    return value
