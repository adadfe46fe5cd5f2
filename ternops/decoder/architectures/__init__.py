"""The architectures that this decoder computes, a file each."""

from __future__ import annotations

from typing import Any

from ternops.decoder.architectures.architecture import (
    ACTIVATIONS,
    BIASED,
    DELTA_LINEAR,
    DELTA_SLOTS,
    INNER_NORMS,
    LINEAR,
    NORMS,
    PERIOD,
    TAPS,
    VECTORS,
    Architecture,
    Gguf,
    HuggingFace,
    delta_layers,
)
from ternops.decoder.architectures.bitnet import BITNET
from ternops.decoder.architectures.gemma3 import GEMMA3
from ternops.decoder.architectures.llama import LLAMA
from ternops.decoder.architectures.minicpm import MINICPM
from ternops.decoder.architectures.qwen2 import QWEN2
from ternops.decoder.architectures.qwen3 import QWEN3
from ternops.decoder.architectures.qwen35 import QWEN35
from ternops.shown import shown

__all__ = ["ACTIVATIONS", "ARCHITECTURES", "BIASED", "DELTA_LINEAR", "DELTA_SLOTS", "INNER_NORMS",
           "LINEAR", "NORMS", "PERIOD", "TAPS", "VECTORS", "Architecture", "Gguf", "HuggingFace",
           "delta_layers", "find_gguf", "find_hugging_face"]  # fmt: skip

#: name -> Architecture.
ARCHITECTURES = {
    each.name: each for each in (BITNET, LLAMA, QWEN2, QWEN3, GEMMA3, MINICPM, QWEN35)
}  # fmt: skip


def find_hugging_face(raw: dict[str, Any]) -> tuple[Architecture, HuggingFace]:
    """Of a config.json; ValueError for a program whose computation is not known here."""
    forms = {form.program: (each, form) for each in ARCHITECTURES.values()
             for form in each.hugging_face}  # fmt: skip
    bases = {form.base: pair for pair in forms.values() if (form := pair[1]).base}
    names = raw.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str) or name not in forms | bases:
        raise ValueError(f"config: architectures is {shown(names)}, expected {' or '.join(forms)}")
    return (forms | bases)[name]


def find_gguf(metadata: dict[str, Any]) -> tuple[Architecture, Gguf]:
    """Of a GGUF file's metadata; ValueError for one whose computation is not known here."""
    forms = {form.name: (each, form) for each in ARCHITECTURES.values() for form in each.gguf}
    name = metadata.get("general.architecture")
    if not isinstance(name, str) or name not in forms:
        raise ValueError(
            f"config: general.architecture is {shown(name)}, expected {' or '.join(forms)}"
        )
    return forms[name]
