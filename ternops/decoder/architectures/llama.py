"""LLaMA (arXiv 2302.13971): pre-norms, rotary embeddings, a gated FFN."""

from ternops.decoder.architectures.architecture import Architecture, Gguf, HuggingFace

LLAMA = Architecture(
    name="llama",
    title="LLaMA",
    norms=("input", "post"),
    hugging_face=(HuggingFace("LlamaForCausalLM", "llama"),),
    gguf=(Gguf("llama", interleaved=True, reads_factors=True),),
)
