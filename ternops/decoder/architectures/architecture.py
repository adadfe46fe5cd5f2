"""What an architecture is: the shape of its layers, and its names in the files that models come in.

A `Config` has the numbers of one model, an `Architecture` what all models of its kind share. The
forward pass, its NumPy reference, the cost model, the readers of files and the writers of random
models take it from here. Scales, windows and kinds of rope are numbers, in `Config`, which are
neutral where a model has none; what no architecture of this package has yet becomes a field when
the first one needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

#: What is between the products of the gated FFN: act(gate) * up. A pass's record holds the index.
ACTIVATIONS = ("silu", "relu2", "gelu_tanh")


class Norm(NamedTuple):
    """A place for an RMS norm. size: of its weight; heads: to how many parts of a token it is
    applied, each with this weight. Both are names in `Config.sizes`."""

    size: str
    heads: str = "one"


_FFN = {"gate": ("ffn", "hidden"), "up": ("ffn", "hidden"), "down": ("hidden", "ffn")}
#: The linear layers: outputs and inputs, names in `Config.sizes`. Rows of q are those of a head's
#: query and, where attention is gated, of its gate.
LINEAR = {
    "q": ("queries_and_gates", "hidden"),
    "k": ("keys", "hidden"),
    "v": ("keys", "hidden"),
    "o": ("hidden", "queries"),
    **_FFN,
}
#: The same of a layer with a gated delta net in place of attention (arXiv 2412.06464): queries,
#: keys and values, which are convolved together; what gates its output; and its output.
DELTA_LINEAR = {
    "qkv": ("delta_mixed", "hidden"),
    "z": ("delta_values", "hidden"),
    "out": ("hidden", "delta_values"),
    **_FFN,
}
#: Where a layer's record and its buffers have them.
DELTA_SLOTS = {"qkv": "q", "z": "k", "out": "o"}
#: Positions that a delta net's convolution sees, the latest included.
TAPS = 4
#: All layers but each such one have a delta net, where files do not say otherwise.
PERIOD = 4


def delta_layers(layers: int, period: int) -> tuple[int, ...]:
    """1 for each layer with a delta net, 0 for each period-th one, with attention."""
    return tuple(int((at + 1) % period > 0) for at in range(layers))


#: What a delta net has besides, float32: the taps (TAPS, mixed), the oldest position first; the
#: rows that an input is multiplied by for how much each head forgets and writes, (heads, hidden);
#: what the first is added to, and what it is then multiplied by, positive, (heads,).
VECTORS = {
    "taps": ("taps", "delta_mixed"),
    "forget": ("delta_heads", "hidden"),
    "write": ("delta_heads", "hidden"),
    "forget_bias": ("one", "delta_heads"),
    "forget_rate": ("one", "delta_heads"),
}
#: Those that may have a bias: what follows them is an element at a time.
BIASED = ("q", "k", "v")
#: The norm of a linear layer's own inputs -> that layer. It follows the norm that layers share,
#: and has an epsilon of its own. A block has all of them or none.
INNER_NORMS = {f"{name}_input": name for name in LINEAR}
#: Where a layer may have a norm: before q, k and v; of each head of a query or key, before its
#: rotation; before o; of what o adds; before gate and up; before down; of what down adds; and
#: within a linear layer. Of a delta net: of each head, before its gate.
NORMS = {
    "input": Norm("hidden"),
    "q": Norm("head_dim", "heads"),
    "k": Norm("head_dim", "kv_heads"),
    "attention": Norm("queries"),
    "o_output": Norm("hidden"),
    "post": Norm("hidden"),
    "ffn": Norm("ffn"),
    "down_output": Norm("hidden"),
    "delta": Norm("delta_value_dim", "delta_heads"),
    **{name: Norm(LINEAR[layer][1]) for name, layer in INNER_NORMS.items()},
}


def _hugging_face_linear() -> dict[str, str]:
    attention = {name: f"self_attn.{name}_proj" for name in ("q", "k", "v", "o")}
    return attention | {name: f"mlp.{name}_proj" for name in ("gate", "up", "down")}


def _hugging_face_norms() -> dict[str, tuple[str, ...]]:
    return {"input": ("input_layernorm",), "post": ("post_attention_layernorm",)}


@dataclass(frozen=True)
class HuggingFace:
    """A program of transformers, and what its folders say.

    program: its name in config.json's `architectures`; base: that without the head. model_type:
    that in config.json; strict: whether any other one is refused. code: the program in `auto_map`
    that this one is. rope_theta, epsilon, head_dim (None: hidden over heads), tied, activation
    (None: config.json must say), context (the same), query_scalar (None: head_dim, whatever
    config.json says): what the program takes if config.json does not say. activation_key: where it
    says the activation. settings: keys of config.json that this program alone reads, and their
    values that change nothing here. windows: which layers have a window where config.json does not
    list them: "" (none), "upper" (those from max_window_layers on, if use_sliding_window) or
    "pattern" (all but each sixth); local_theta: rope's base in these layers, None: that of all.
    scales_embedding: whether embeddings are multiplied by the root of hidden. mup: whether
    scale_emb, scale_depth and dim_model_base count. norm_offset: what is added to the weights of
    norms but those in unmoved. partial: the part of a head that is rotated where config.json does
    not say, 1 in programs that rotate all. hybrid: whether layer_types tells layers with a delta
    net. nested: the key of config.json under which a program that also sees has what it says of
    text. ignored: how tensors begin that are of no text. quantises: whether it rounds its float
    weights to trits each time that it uses them, without a word in config.json. linear_class: how
    published models of it store trits. linear: the names of a layer's matrices; norms: those of its
    norms, what is read under several names with the usual one first; inner_norms: names for a norm
    that is part of a linear layer; vectors: the tensors of VECTORS.
    """

    program: str
    model_type: str
    base: str = ""
    strict: bool = True
    code: str = ""
    rope_theta: float = 10000.0
    epsilon: float = 1e-6
    head_dim: int | None = None
    tied: bool = False
    activation: str | None = None
    activation_key: str = "hidden_act"
    context: int | None = None
    query_scalar: float | None = None
    settings: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    windows: str = ""
    local_theta: float | None = None
    scales_embedding: bool = False
    mup: bool = False
    norm_offset: float = 0.0
    unmoved: tuple[str, ...] = tuple(INNER_NORMS)
    partial: float = 1.0
    hybrid: bool = False
    nested: str = ""
    ignored: tuple[str, ...] = ()
    quantises: bool = False
    linear_class: str = "bitlinear"
    embedding: str = "model.embed_tokens.weight"
    head: str = "lm_head.weight"
    final_norm: str = "model.norm.weight"
    layer: str = "model.layers.{}."
    linear: Mapping[str, str] = field(default_factory=_hugging_face_linear)
    norms: Mapping[str, tuple[str, ...]] = field(default_factory=_hugging_face_norms)
    inner_norms: tuple[str, ...] = ("rms_norm", "norm")
    vectors: Mapping[str, str] = field(default_factory=dict)

    def matrix(self, layer: int, name: str) -> str:
        """The tensor of a linear layer's weight."""
        return f"{self.layer.format(layer)}{self.linear[name]}.weight"

    def bias(self, layer: int, name: str) -> str:
        """The tensor of a linear layer's bias."""
        return f"{self.layer.format(layer)}{self.linear[name]}.bias"

    def norm_names(self, name: str) -> tuple[str, ...]:
        """What a norm may be called within a layer."""
        if name in INNER_NORMS:
            return tuple(f"{self.linear[INNER_NORMS[name]]}.{each}" for each in self.inner_norms)
        return self.norms[name]

    def norm(self, layer: int, name: str) -> tuple[str, ...]:
        """The tensors that a norm's weight may be in."""
        return tuple(f"{self.layer.format(layer)}{each}.weight" for each in self.norm_names(name))

    def vector(self, layer: int, name: str) -> str:
        """The tensor of a name in VECTORS."""
        return f"{self.layer.format(layer)}{self.vectors[name]}"

    def without_prefix(self) -> HuggingFace:
        """The same as the program without the head names its tensors."""
        names = {name: getattr(self, name) for name in ("embedding", "final_norm", "layer")}
        return replace(self, **{name: each.removeprefix("model.") for name, each in names.items()})


def _gguf_linear() -> dict[str, str]:
    attention = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output"}
    return attention | {name: f"ffn_{name}" for name in ("gate", "up", "down")}


def _gguf_norms() -> dict[str, str]:
    return {"input": "attn_norm", "post": "ffn_norm"}


@dataclass(frozen=True)
class Gguf:
    """An architecture of llama.cpp, or of a program made from it.

    name: `general.architecture`. activation: the one if the file does not say; "" if it must.
    published: models whose files do not say although they must: vocabulary and rope's base -> a
    name and the activation. interleaved: whether the rows of q and k are in an order in which rope
    rotates neighbours (LLAMA_ROPE_TYPE_NORM). reads_factors: whether its program reads a tensor of
    what rope's frequencies are divided by; reads_long_factors: or two, one for long contexts;
    uses_scales: and uses a tensor of one scale beside a matrix, which all programs read.
    period: all layers but each such have the window of the file, 0: none has one; local_theta:
    rope's base in these. scales_embedding: whether embeddings are multiplied by the root of hidden.
    mup: whether its scales of embedding, residual and logits count. wide_queries: the number of
    layers of the model whose scores are scaled by hidden over heads. hybrid: whether all layers but
    each full_attention_interval-th have a delta net, whose heads are in another order. linear,
    norms: the names of a layer's tensors; vectors: those of VECTORS, whole.
    """

    name: str
    activation: str = "silu"
    published: Mapping[tuple[int, float], tuple[str, str]] = field(default_factory=dict)
    interleaved: bool = False
    reads_factors: bool = False
    reads_long_factors: bool = False
    uses_scales: bool = True
    period: int = 0
    local_theta: float = 0.0
    scales_embedding: bool = False
    mup: bool = False
    wide_queries: int = 0
    hybrid: bool = False
    embedding: str = "token_embd.weight"
    head: str = "output.weight"
    final_norm: str = "output_norm.weight"
    layer: str = "blk.{}."
    linear: Mapping[str, str] = field(default_factory=_gguf_linear)
    norms: Mapping[str, str] = field(default_factory=_gguf_norms)
    vectors: Mapping[str, str] = field(default_factory=dict)

    def matrix(self, layer: int, name: str) -> str:
        """The tensor of a linear layer's weight."""
        return f"{self.layer.format(layer)}{self.linear[name]}.weight"

    def bias(self, layer: int, name: str) -> str:
        """The tensor of a linear layer's bias."""
        return f"{self.layer.format(layer)}{self.linear[name]}.bias"

    def norm_name(self, name: str) -> str:
        """What a norm is called within a layer."""
        if name in INNER_NORMS:
            return f"{self.linear[INNER_NORMS[name]]}_norm_in"
        return self.norms[name]

    def norm(self, layer: int, name: str) -> str:
        """The tensor of a norm's weight."""
        return f"{self.layer.format(layer)}{self.norm_name(name)}.weight"

    def vector(self, layer: int, name: str) -> str:
        """The tensor of a name in VECTORS."""
        return f"{self.layer.format(layer)}{self.vectors[name]}"


@dataclass(frozen=True)
class Architecture:
    """name: in `Config.architecture` and packed files. title: for people. norms: those of a layer,
    names in NORMS, in the order of packed files. hugging_face, gguf: what it is called there, the
    form that random models are written in first. biases: the linear layers that have one, of
    BIASED. gated: whether what a head attends to is multiplied by the sigmoid of a gate that q
    computes with its query. delta_norms: the norms of a layer with a delta net.
    """

    name: str
    title: str
    norms: tuple[str, ...]
    hugging_face: tuple[HuggingFace, ...]
    gguf: tuple[Gguf, ...]
    biases: tuple[str, ...] = ()
    gated: bool = False
    delta_norms: tuple[str, ...] = ()
