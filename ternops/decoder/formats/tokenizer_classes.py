"""The classes of transformers 5 that make a tokenizer of their own of a tokenizer.json.

They take its vocabulary, merges and post-processor and leave the rest: what stands there for
normalizer, pre-tokenizer and decoder counts for nothing (models/*/tokenization_*.py there).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Class:
    """names: under which it is asked for; named: special tokens where no file names them, None for
    one that the padding of tokenizer.json does not name; parts: from the tokenizer_config.json to
    those of a tokenizer.json; again: whether all special tokens are added once more as plain ones;
    begins: whether the post-processor is kept."""

    names: tuple[str, ...]
    named: dict[str, str | None] = field(default_factory=dict)
    parts: Callable[[Json], Json] = lambda raw: {}
    again: bool = False
    begins: bool = True

    def fits(self, file: Json) -> bool:
        """Whether a tokenizer.json has what it takes."""
        model = file.get("model")
        return isinstance(model, dict) and {"vocab", "merges"} <= set(model)

    def rebuild(self, file: Json, raw: Json) -> Json:
        """The tokenizer.json that the class makes of one that fits, without added tokens."""
        parts = self.parts(raw)
        model = {"type": "BPE", "vocab": file["model"]["vocab"], "merges": file["model"]["merges"]}
        return {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
            "normalizer": None, **parts, "model": {**model, **parts["model"]},
            "post_processor": file.get("post_processor") if self.begins else None,
        }  # fmt: skip


def is_byte_level(file: Json) -> bool:
    """Whether some part of a tokenizer.json is for bytes, as of GPT-2."""
    return any(map(_names_bytes, (part for name, part in file.items() if name != "model")))


def _names_bytes(part: Any) -> bool:
    if isinstance(part, list):
        return any(map(_names_bytes, part))
    if not isinstance(part, dict):
        return False
    return part.get("type") == "ByteLevel" or any(map(_names_bytes, part.values()))


def _llama(raw: Json) -> Json:
    prefixed = raw.get("add_prefix_space")
    prefixed = True if prefixed is None else bool(prefixed)
    scheme = ("always" if raw.get("legacy", False) else "first") if prefixed else "never"
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefixed else []
    return {
        "model": {"fuse_unk": True, "byte_fallback": True},
        "pre_tokenizer": {
            "type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": False
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, *strip,
        ]},
    }  # fmt: skip


def _gemma(raw: Json) -> Json:
    return {
        "model": {"fuse_unk": True, "byte_fallback": True},
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": {
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
        ]},
    }  # fmt: skip


def _bytes(prefixed: Any, use_regex: bool = True) -> Json:
    return {
        "type": "ByteLevel", "add_prefix_space": bool(prefixed), "trim_offsets": True,
        "use_regex": use_regex,
    }  # fmt: skip


_PLAIN_BPE = {"continuing_subword_prefix": "", "end_of_word_suffix": ""}


def _gpt2(raw: Json) -> Json:
    prefixed = raw.get("add_prefix_space", False)
    return {"model": _PLAIN_BPE, "pre_tokenizer": _bytes(prefixed), "decoder": _bytes(True)}


def _gpt_neox(raw: Json) -> Json:
    return {**_gpt2(raw), "normalizer": {"type": "NFC"}}


_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _qwen2(raw: Json) -> Json:
    split = {
        "type": "Split", "pattern": {"Regex": _QWEN2}, "behavior": "Isolated", "invert": False
    }  # fmt: skip
    after = _bytes(raw.get("add_prefix_space"), use_regex=False)
    pieces = {"type": "Sequence", "pretokenizers": [split, after]}
    return {**_gpt_neox(raw), "pre_tokenizer": pieces}


_END = "<|endoftext|>"

#: The tokenizer.json as it is.
PLAIN = Class(("TokenizersBackend", "PreTrainedTokenizer"))

CLASSES = {
    made.names[0]: made
    for made in (
        Class(
            ("LlamaTokenizer",),
            {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}, _llama,
        ),
        Class(
            ("GemmaTokenizer",),
            {"unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>",
             "pad_token": "<pad>", "mask_token": "<mask>"},
            _gemma,
        ),
        Class(
            ("GPT2Tokenizer",),
            {"unk_token": _END, "bos_token": _END, "eos_token": _END, "pad_token": None}, _gpt2,
        ),
        Class(
            ("GPTNeoXTokenizer",),
            {"unk_token": _END, "bos_token": _END, "eos_token": _END, "pad_token": "<|padding|>"},
            _gpt_neox, begins=False,
        ),
        Class(
            ("Qwen2Tokenizer",), {"unk_token": _END, "eos_token": _END, "pad_token": _END}, _qwen2,
            again=True,
        ),
    )
}  # fmt: skip
