"""MiniCPM (arXiv 2404.06395): LLaMA with muP's scales of embedding, residual and logits."""

from ternops.decoder.architectures.architecture import Architecture, Gguf, HuggingFace

#: What its program takes where config.json does not say (configuration_minicpm.py of its folders).
MINICPM = Architecture(
    name="minicpm",
    title="MiniCPM",
    norms=("input", "post"),
    hugging_face=(
        HuggingFace(
            "MiniCPMForCausalLM", "minicpm", code="modeling_minicpm.MiniCPMForCausalLM",
            tied=True, activation="silu", mup=True, settings={"use_mup": (True,)},
        ),
    ),
    gguf=(
        Gguf(
            "minicpm", interleaved=True, reads_long_factors=True, uses_scales=False, mup=True,
        ),
    ),
)  # fmt: skip
