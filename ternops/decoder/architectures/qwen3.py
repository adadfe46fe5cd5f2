"""Qwen3 (arXiv 2505.09388): LLaMA with a norm for each head of the queries and keys. Its head_dim
is not hidden over heads."""

from ternops.decoder.architectures.architecture import Architecture, Gguf, HuggingFace
from ternops.decoder.architectures.llama import LLAMA

QWEN3 = Architecture(
    name="qwen3",
    title="Qwen3",
    norms=("input", "q", "k", "post"),
    hugging_face=(
        HuggingFace(
            "Qwen3ForCausalLM", "qwen3", base="Qwen3Model", head_dim=128,
            context=32768, windows="upper",
            settings={"use_qk_norm": (True,), "qk_norm": (True,)},
            norms={
                **LLAMA.hugging_face[0].norms, "q": ("self_attn.q_norm",),
                "k": ("self_attn.k_norm",),
            },
        ),
    ),
    gguf=(Gguf("qwen3", norms={**LLAMA.gguf[0].norms, "q": "attn_q_norm", "k": "attn_k_norm"}),),
)  # fmt: skip
