"""BitNet b1.58: LLaMA with norms before the output and down projections, too."""

from ternops.decoder.architectures.architecture import Architecture, Gguf, HuggingFace
from ternops.decoder.architectures.llama import LLAMA

#: The second of two names is that of 1bitLLM's files.
_NORMS = {
    **LLAMA.hugging_face[0].norms,
    "attention": ("self_attn.attn_sub_norm", "self_attn.inner_attn_ln"),
    "ffn": ("mlp.ffn_sub_norm", "mlp.ffn_layernorm"),
}
_GGUF_NORMS = {**LLAMA.gguf[0].norms, "attention": "attn_sub_norm", "ffn": "ffn_sub_norm"}

#: Sources: ggml-org/llama.cpp, src/llama-model.cpp (llama_model_rope_type) and LlamaModel.permute
#: of its converter, which writes a "bitnet" of 1bitLLM's models and of Microsoft's, with other
#: activations, and does not say which. microsoft/BitNet's llama.cpp, src/llama.cpp:
#: build_bitnet_158 (LLM_FFN_RELU_SQR), and LLAMA_ROPE_TYPE_NEOX for all three of BitNet's names.
BITNET = Architecture(
    name="bitnet",
    title="BitNet",
    norms=("input", "post", "attention", "ffn"),
    hugging_face=(
        # microsoft/bitnet-b1.58-2B-4T
        HuggingFace(
            "BitNetForCausalLM", "bitnet", strict=False, rope_theta=500000.0, epsilon=1e-5,
            linear_class="autobitlinear", norms=_NORMS,
        ),
        # 1bitLLM/bitnet_b1_58-large
        HuggingFace("BitnetForCausalLM", "llama", strict=False, quantises=True, norms=_NORMS),
    ),
    gguf=(
        Gguf(
            "bitnet", activation="", norms=_GGUF_NORMS,
            published={
                (128256, 500000.0): ("BitNet b1.58 2B4T", "relu2"),
                (32002, 10000.0): ("1bitLLM's bitnet_b1_58", "silu"),
            },
        ),
        Gguf("bitnet-b1.58", activation="relu2", norms=_GGUF_NORMS),
        Gguf("bitnet-25", activation="relu2", norms=_GGUF_NORMS),
    ),
)  # fmt: skip
