"""What a model's files recommend of sampling: generation_config.json and its like."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ternops.decoder.formats.json_files import read_optional
from ternops.decoder.sampling import Sampling

#: What files tell of: names of `Sampling`, and GGUF's.
KEYS = {
    "temperature": "general.sampling.temp",
    "top_k": "general.sampling.top_k",
    "top_p": "general.sampling.top_p",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}
#: What transformers samples with where a file says do_sample and no more.
_SAMPLED = {"temperature": 1.0, "top_k": 50}


def read_sampling(folder: Path) -> Sampling:
    """Of a Hugging Face folder: as transformers reads it, greedy unless do_sample is true.

    Raises ValueError, naming the file, for a setting that is none.
    """
    path = folder / "generation_config.json"
    found = read_optional(path)
    if found.get("do_sample") is True:
        given = {key: value for key, value in found.items() if value is not None}
        found = _SAMPLED | given
    else:
        found = {"repetition_penalty": found.get("repetition_penalty")}
    return _made(found, f"model: {str(path)!r}")


def gguf_sampling(metadata: Mapping[str, Any]) -> Sampling:
    """Of a GGUF file; raises ValueError for a setting that is none."""
    found = {name: metadata.get(key) for name, key in KEYS.items()}
    for name, value in found.items():
        if isinstance(value, float):
            found[name] = float(str(np.float32(value)))  # as it was before it was a float32
    return _made(found, "general.sampling")


def to_json(sampling: Sampling) -> str:
    """For `from_json`: what is not as without any recommendation."""
    return json.dumps(recommended(sampling))


def from_json(text: str) -> Sampling:
    """Raises ValueError for a text that `to_json` did not write."""
    try:
        return _made(dict(json.loads(text)), "sampling")
    except (TypeError, RecursionError) as error:
        raise ValueError(f"sampling: {error}") from None


def recommended(sampling: Sampling) -> dict[str, Any]:
    """The settings of KEYS that are not as without any recommendation."""
    pairs = ((name, getattr(sampling, name)) for name in KEYS)
    return {name: value for name, value in pairs if value != getattr(Sampling(), name)}


def _made(found: Mapping[str, Any], source: str) -> Sampling:
    known = {name: found[name] for name in KEYS if found.get(name) is not None}
    if known.get("top_k") == -1:
        known["top_k"] = 0  # another way to write all
    try:
        return Sampling(**known)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{source}: {error}") from None
