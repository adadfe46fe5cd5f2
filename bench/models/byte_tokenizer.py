"""A tokenizer for random models: three special tokens, the 256 bytes, and the space.

It is SentencePiece's with nothing to merge, which every engine reads: any text becomes the tokens
of its bytes, and back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gguf import TokenType
from tokenizers import Tokenizer

from ternops.decoder.formats.gguf_tokenizer import build_tokenizer

SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
UNKNOWN, BEGIN, END = range(3)
_SPACE = "\u2581"  # as SentencePiece writes it
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_TOKENS = [*SPECIAL.values(), *_BYTES, _SPACE]
_KINDS = [
    TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * len(_BYTES),
    TokenType.NORMAL,
]  # fmt: skip


def gguf_keys(vocabulary: int) -> dict[str, Any]:
    """The metadata of a GGUF file whose model has a vocabulary of that size, filled up with tokens
    that no text becomes.

    Raises ValueError for one that is too small.
    """
    spare = range(len(_TOKENS), vocabulary)
    if vocabulary < len(_TOKENS):
        raise ValueError(f"vocabulary: {vocabulary}, expected at least {len(_TOKENS)} tokens")
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": _TOKENS + [f"[PAD{number}]" for number in spare],
        "tokenizer.ggml.token_type": [*map(int, _KINDS), *[int(TokenType.UNUSED)] * len(spare)],
        "tokenizer.ggml.scores": [0.0] * vocabulary,
        "tokenizer.ggml.unknown_token_id": UNKNOWN,
        "tokenizer.ggml.bos_token_id": BEGIN,
        "tokenizer.ggml.eos_token_id": END,
        "tokenizer.ggml.add_space_prefix": False,
    }


def tokenizer() -> Tokenizer:
    """The same for a Hugging Face folder, without what fills up."""
    keys = gguf_keys(len(_TOKENS))
    numbers = ("tokenizer.ggml.token_type", "tokenizer.ggml.scores")
    return build_tokenizer(keys | {key: np.array(keys[key]) for key in numbers})
