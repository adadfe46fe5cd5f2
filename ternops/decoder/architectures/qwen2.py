"""Qwen2 (arXiv 2407.10671): LLaMA with biases in the projections of attention."""

from ternops.decoder.architectures.architecture import Architecture, Gguf, HuggingFace

QWEN2 = Architecture(
    name="qwen2",
    title="Qwen2",
    norms=("input", "post"),
    biases=("q", "k", "v"),
    hugging_face=(
        HuggingFace("Qwen2ForCausalLM", "qwen2", base="Qwen2Model", context=32768, windows="upper"),
    ),
    gguf=(Gguf("qwen2", uses_scales=False),),
)
