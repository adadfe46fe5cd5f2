"""The layouts of the sizes that are predicted and measured: the paper's, and BitNet b1.58 2B4T's;
those of Qwen3 and Qwen3.5, which models with a scale a group of inputs have; and those of embedding
models.

Source of the paper's layouts: the model configurations of "1-bit AI Infra: Part 1.1"
(arXiv 2410.16144), LLaMA-like, as many key/value heads as heads, vocabulary 32000.
"""

from __future__ import annotations

import tomllib
from collections import ChainMap
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path

from ternops.decoder.config import Config

_CONTEXT = 2048

#: size -> hidden, ffn, layers, heads
_PAPER = {
    "125M": (768, 3072, 11, 12),
    "350M": (1024, 3072, 24, 16),
    "700M": (1536, 4096, 24, 16),
    "1B": (2048, 3584, 24, 32),
    "1.5B": (1536, 9216, 28, 32),
    "2.7B": (3072, 7680, 24, 32),
    "3B": (3200, 8640, 26, 32),
    "3.8B": (3840, 8192, 24, 32),
    "7B": (4096, 12032, 32, 32),
    "13B": (5120, 13824, 40, 40),
    "30B": (6656, 16384, 60, 52),
    "70B": (8192, 24576, 80, 64),
    "100B": (8192, 45568, 72, 64),
}


def _llama(hidden: int, ffn: int, layers: int, heads: int) -> Config:
    return Config(
        hidden=hidden, ffn=ffn, layers=layers, heads=heads, kv_heads=heads,
        head_dim=hidden // heads, vocabulary=32000, context=_CONTEXT,
    )  # fmt: skip


SIZES = {size: _llama(*numbers) for size, numbers in _PAPER.items()}
SIZES["2B4T"] = Config(
    hidden=2560, ffn=6912, layers=30, heads=20, kv_heads=5, head_dim=128, vocabulary=128256,
    context=4096, activation="relu2", architecture="bitnet", rope_theta=500000.0,
)  # fmt: skip

#: size -> hidden, ffn, layers, heads, whether the embedding is the head
_QWEN3 = {
    "1.7B": (2048, 6144, 28, 16, True),
    "4B": (2560, 9728, 36, 32, True),
    "8B": (4096, 12288, 36, 32, False),
}

#: Layouts of models that are ternary with a scale for GROUP inputs, embedding and head as well.
GROUP = 128
GROUPED = {
    f"Qwen3 {size}": Config(
        hidden=hidden, ffn=ffn, layers=layers, heads=heads, kv_heads=8, head_dim=128,
        vocabulary=151936, context=4096, activation="silu", architecture="qwen3",
        rope_theta=1e6, epsilon=1e-6, tied=tied,
    )
    for size, (hidden, ffn, layers, heads, tied) in _QWEN3.items()
}  # fmt: skip

#: Those of Qwen3.5, with a gated delta net in three layers of four, held in the same way.
HYBRID = {
    "Qwen3.5 27B": Config(
        hidden=5120, ffn=17408, layers=64, heads=24, kv_heads=4, head_dim=256, vocabulary=248320,
        context=4096, architecture="qwen3.5", rope_theta=1e7, epsilon=1e-6, tied=False,
        rotary_dim=64, delta_layers=(1, 1, 1, 0) * 16, delta_heads=48, delta_key_heads=16,
        delta_key_dim=128, delta_value_dim=128,
    ),
}  # fmt: skip

#: All that have a scale for GROUP inputs, and all layouts that decode.
WITH_GROUPS: Mapping[str, Config] = ChainMap(HYBRID, GROUPED)
LAYOUTS: Mapping[str, Config] = ChainMap(HYBRID, GROUPED, SIZES)


@cache
def large() -> Mapping[str, Config]:
    """Layouts larger than those that are measured, of `large_layouts.toml`."""
    path = Path(str(resources.files("ternops.cost") / "large_layouts.toml"))
    return {
        size: _llama(*(int(each[name]) for name in ("hidden", "ffn", "layers", "heads")))
        for size, each in tomllib.loads(path.read_text("utf-8")).items()
    }


_LAYERS, _WINDOW, _PERIOD = 18, 512, 6
#: Layouts of microsoft's BitNet embedding models, whose linear layers norm their own inputs.
EMBEDDERS = {
    "embedding 0.6B": Config(
        hidden=1024, ffn=3072, layers=28, heads=16, kv_heads=8, head_dim=128, vocabulary=151936,
        context=32768, architecture="qwen3", rope_theta=1e6, epsilon=1e-6, inner_norms=True,
    ),
    "embedding 270M": Config(
        hidden=640, ffn=2048, layers=_LAYERS, heads=4, kv_heads=1, head_dim=256,
        vocabulary=262144, context=32768, activation="gelu_tanh", architecture="gemma3",
        rope_theta=1e6, rope_local_theta=1e4, epsilon=1e-6, query_scalar=256.0,
        embedding_scale=640**0.5, inner_norms=True,
        windows=tuple(0 if at % _PERIOD == _PERIOD - 1 else _WINDOW for at in range(_LAYERS)),
    ),
}  # fmt: skip
