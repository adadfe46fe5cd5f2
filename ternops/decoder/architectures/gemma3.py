"""Gemma 3, text alone (arXiv 2503.19786): norms before and after attention and FFN and of heads,
GELU, scaled embeddings, and five layers with a window of attention for each one without."""

from ternops.decoder.architectures.architecture import Architecture, Gguf, HuggingFace

GEMMA3 = Architecture(
    name="gemma3",
    title="Gemma 3",
    norms=("input", "q", "k", "o_output", "post", "down_output"),
    hugging_face=(
        HuggingFace(
            "Gemma3ForCausalLM", "gemma3_text", base="Gemma3TextModel", rope_theta=1000000.0,
            head_dim=256, tied=True, activation="gelu_pytorch_tanh",
            activation_key="hidden_activation", context=131072, query_scalar=256,
            windows="pattern", local_theta=10000.0, scales_embedding=True, norm_offset=1.0,
            norms={
                "input": ("input_layernorm",),
                "q": ("self_attn.q_norm",),
                "k": ("self_attn.k_norm",),
                "o_output": ("post_attention_layernorm",),
                "post": ("pre_feedforward_layernorm",),
                "down_output": ("post_feedforward_layernorm",),
            },
        ),
    ),
    gguf=(
        Gguf(
            "gemma3", activation="gelu_tanh", period=6, local_theta=10000.0,
            scales_embedding=True, wide_queries=62,
            norms={
                "input": "attn_norm",
                "q": "attn_q_norm",
                "k": "attn_k_norm",
                "o_output": "post_attention_norm",
                "post": "ffn_norm",
                "down_output": "post_ffw_norm",
            },
        ),
    ),
)  # fmt: skip
