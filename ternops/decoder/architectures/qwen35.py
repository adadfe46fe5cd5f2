"""Qwen3.5, text alone: Qwen3 with gated attention that rotates a quarter of a head, and, in most
layers, a gated delta net (arXiv 2412.06464) in place of attention."""

from dataclasses import replace

from ternops.decoder.architectures.architecture import (
    INNER_NORMS,
    Architecture,
    Gguf,
    HuggingFace,
)
from ternops.decoder.architectures.llama import LLAMA
from ternops.decoder.architectures.qwen3 import QWEN3

_TEXT = HuggingFace(
    "Qwen3_5ForCausalLM", "qwen3_5_text", base="Qwen3_5TextModel", head_dim=256, activation="silu",
    context=32768, norm_offset=1.0, unmoved=(*INNER_NORMS, "delta"), partial=0.25, hybrid=True,
    ignored=("mtp.", "model.visual."), settings={"attn_output_gate": (True,)},
    linear={
        **LLAMA.hugging_face[0].linear,
        "qkv": "linear_attn.in_proj_qkv",
        "z": "linear_attn.in_proj_z",
        "out": "linear_attn.out_proj",
    },
    norms={**QWEN3.hugging_face[0].norms, "delta": ("linear_attn.norm",)},
    vectors={
        "taps": "linear_attn.conv1d.weight",
        "forget": "linear_attn.in_proj_a.weight",
        "write": "linear_attn.in_proj_b.weight",
        "forget_bias": "linear_attn.dt_bias",
        "forget_rate": "linear_attn.A_log",
    },
)  # fmt: skip

#: Sources: transformers' qwen3_5; ggml-org/llama.cpp, src/models/qwen35.cpp, and its converter,
#: which adds 1 to norms, writes rates as they are multiplied, and moves the value heads.
QWEN35 = Architecture(
    name="qwen3.5",
    title="Qwen3.5",
    norms=("input", "q", "k", "post"),
    delta_norms=("input", "delta", "post"),
    gated=True,
    hugging_face=(
        _TEXT,
        replace(
            _TEXT, program="Qwen3_5ForConditionalGeneration", base="", nested="text_config",
            embedding="model.language_model.embed_tokens.weight",
            final_norm="model.language_model.norm.weight", layer="model.language_model.layers.{}.",
        ),
    ),
    gguf=(
        Gguf(
            "qwen35", hybrid=True,
            linear={
                **LLAMA.gguf[0].linear,
                "qkv": "attn_qkv", "z": "attn_gate", "out": "ssm_out",
            },
            norms={
                **QWEN3.gguf[0].norms, "post": "post_attention_norm", "delta": "ssm_norm",
            },
            vectors={
                "taps": "ssm_conv1d.weight",
                "forget": "ssm_alpha.weight",
                "write": "ssm_beta.weight",
                "forget_bias": "ssm_dt.bias",
                "forget_rate": "ssm_a",
            },
        ),
    ),
)  # fmt: skip
