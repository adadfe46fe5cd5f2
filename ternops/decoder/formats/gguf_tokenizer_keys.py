"""A tokenizer as the keys of a GGUF file, the opposite of `gguf_tokenizer`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ternops.decoder.formats.gguf_tokenizer import (
    BYTE,
    CONTROL,
    MERGES,
    NAMES,
    NORMAL,
    SPLITS,
    TOKENS,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)
from ternops.shown import shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: What ByteLevel cuts text by where no pattern comes before it.
_GPT2 = SPLITS["gpt-2"].patterns


def tokenizer_keys(
    tokenizer: Tokenizer, special: dict[str, str], ends: tuple[int, ...], vocabulary: int
) -> dict[str, Any]:
    """The metadata of a tokenizer. special: texts as `Checkpoint.special_tokens` gives them; ends:
    tokens that end a text; vocabulary: rows of the embedding, which tokens are filled up to.

    Raises ValueError for a tokenizer that llama.cpp has not, or whose name is not known here.
    """
    raw = json.loads(tokenizer.to_str())
    model = raw["model"]
    if model.get("type") != "BPE":
        raise ValueError(f"tokenizer: model is {shown(model.get('type'))}, expected 'BPE'")
    tokens = {at: text for text, at in model["vocab"].items()}
    kinds = dict.fromkeys(tokens, NORMAL)
    for added in raw["added_tokens"]:
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    texts = [tokens.get(at, f"[PAD{at}]") for at in range(max(vocabulary, *tokens))]
    types = [kinds.get(at, UNUSED) for at in range(len(texts))]
    keys: dict[str, Any] = {TOKENS: texts, "tokenizer.ggml.token_type": types}
    merges = [tuple(each) if isinstance(each, list) else tuple(each.split(" "))
              for each in model["merges"]]  # fmt: skip
    if model.get("byte_fallback"):
        keys |= _sentence_piece(raw, texts, types, merges)
    else:
        keys |= {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": _name_of(raw),
            MERGES: [" ".join(merge) for merge in merges],
        }
    ids = {text: at for at, text in tokens.items()}
    for name, key in NAMES.items():
        if special.get(name) in ids:
            keys[f"tokenizer.ggml.{key}_token_id"] = ids[special[name]]
    if ends:
        keys["tokenizer.ggml.eos_token_id"] = ends[0]
    around = tokenizer.encode("a").ids
    for name, place in (("bos", 0), ("eos", -1)):
        at = keys.get(f"tokenizer.ggml.{name}_token_id")
        keys[f"tokenizer.ggml.add_{name}_token"] = len(around) > 1 and around[place] == at
    return keys


def _sentence_piece(
    raw: dict[str, Any], texts: list[str], types: list[int], merges: list[tuple[str, ...]]
) -> dict[str, Any]:
    """The score of a token is the place of its first merge; what no merge makes comes last."""
    scores = {text: -float(len(merges) + at) for at, text in enumerate(texts)}
    for at, merge in reversed(list(enumerate(merges))):
        scores["".join(merge)] = -float(at)
    for at, text in enumerate(texts):
        if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            types[at] = BYTE
        elif text == raw["model"].get("unk_token"):
            types[at] = UNKNOWN
    steps = json.dumps([raw.get("normalizer"), raw.get("pre_tokenizer")])
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.scores": [scores[text] for text in texts],
        "tokenizer.ggml.add_space_prefix": '"Prepend"' in steps or ': "first"' in steps,
    }


def _name_of(raw: dict[str, Any]) -> str:
    """llama.cpp's name for how a byte-level tokenizer cuts text."""
    step = raw.get("pre_tokenizer") or {}
    steps = step.get("pretokenizers", [step])
    patterns = [each["pattern"]["Regex"] for each in steps
                if each.get("type") == "Split" and "Regex" in each["pattern"]]  # fmt: skip
    if any(each.get("type") == "Digits" and each["individual_digits"] for each in steps):
        patterns.insert(0, r"\p{N}")
    if any(each.get("type") == "ByteLevel" and each.get("use_regex", True) for each in steps):
        patterns += _GPT2
    whole = bool(raw["model"].get("ignore_merges"))
    composed = (raw.get("normalizer") or {}).get("type") == "NFC"
    for name, split in SPLITS.items():
        same = split.patterns == tuple(patterns) and split.composed == composed
        if same and split.whole_words == whole:
            return name
    raise ValueError(
        f"tokenizer: its patterns are {shown(patterns)}, expected those of one of "
        f"{', '.join(SPLITS)}"
    )
