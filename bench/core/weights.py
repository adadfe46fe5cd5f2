"""Engines by the weights that their decoders hold, and the bytes of these."""

from __future__ import annotations

from bench.core.results import FP16
from ternops.cost.layouts import SIZES
from ternops.encodings import ENCODINGS

#: Engine -> what `random_weights` calls its weights.
ENGINES = {FP16: "fp16", **{name: name for name in ENCODINGS}}
#: Engine -> the type of its linear layers in a GGUF file.
LLAMA = {f"llama.cpp {kind.upper()}": kind for kind in ("f16", "tq1_0", "tq2_0", "q4_0")}


def linear_bytes(size: str, engine: str) -> int:
    """Bytes of an engine's linear layers, all of them distinct."""
    weights = SIZES[size].linear_weights
    kind = ENGINES[engine]
    return weights * 2 if kind == "fp16" else ENCODINGS[kind].nbytes(1, weights)
