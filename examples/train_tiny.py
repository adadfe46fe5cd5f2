"""Train a tiny BitNet b1.58 language model on the Python standard library.

The result is a Hugging Face folder with the architecture of microsoft/bitnet-b1.58-2B-4T made
small: ternary linear layers with 8-bit activations, squared ReLU, sub-norms before the output
projections, grouped-query attention, rotary positions and a tied head. It comes with its own
byte-level BPE tokenizer of 1024 entries. The text is the .py files of the interpreter that runs
this script, so nothing is downloaded.

About one file in twenty, chosen by a hash of its path, is never shown to the tokenizer, to the
model or to the baselines. The saved folder is loaded again and scored on those files in bits per
byte (lower is better). The exit code is 1 unless the model needs at most 75% of the bits of a
byte bigram model.

    pip install torch tokenizers safetensors numpy
    python examples/train_tiny.py --output tiny

The checkpoint in ternops/checkpoints/tiny was made with `--minutes 29 --threads 2 --seed 0`
(Python 3.11.7, torch 2.13.0, two cores of a shared machine). In that time it took about 4000 steps,
16.4 million tokens. Held-out bits per byte: 1.129, against 3.537 for a byte bigram model (31.9%)
and 2.157 for a bigram model over the same tokens (52.3%). Leaving out the codec tables of
`encodings`, which resemble one another closely, it is 1.173. A run that is ended by --minutes
depends on the speed of the machine; one that is ended by --steps does not.

--a48 trains a folder that was made here, by default that in ternops/checkpoints/tiny, on to the
activations of BitNet a4.8 (arXiv 2411.04965): inputs of attention and of the feed-forward part of 4
bits, and of o's inputs the larger half alone, of 8 bits. That is the paper's second stage, with a
twentieth of the tokens of the first; a learning rate as high as the first one's undoes more than it
gains. `python -m ternops perplexity --model tiny-a48` says how many of the weights are active.

    python examples/train_tiny.py --a48 --output tiny-a48 --lr 1e-4 --steps 200

The packaged checkpoint has 1.129 held-out bits per byte, with these activations 1.162, and 1.157
after 156 steps so (0.6 million tokens, three minutes on one core).
"""

from __future__ import annotations

import argparse
import math
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import training
from safetensors.torch import load_file, save
from tokenizers import Tokenizer
from torch import Tensor

CONFIG = {
    "architectures": ["BitNetForCausalLM"],
    "model_type": "bitnet",
    "hidden_act": "relu2",
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 1024,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "tie_word_embeddings": True,
    "initializer_range": 0.02,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "use_cache": True,
    "torch_dtype": "bfloat16",
    "quantization_config": {
        "quant_method": "bitnet",
        "linear_class": "autobitlinear",
        "quantization_mode": "online",
    },
}
TINY = Path(__file__).parents[1] / "ternops" / "checkpoints" / "tiny"
Weights = dict[str, Tensor]


class Numbers(NamedTuple):
    """How a pass computes: the type of its products, which is float32 elsewhere, and whether
    activations are those of BitNet a4.8."""

    dtype: torch.dtype = torch.float32
    is_a48: bool = False


class BitLinear(torch.autograd.Function):
    """Product of 8-bit activations and one or more ternary matrices that share the input.

    Activations become integers in [-128, 127], with is_int4 in [-8, 7] by absmean, and weights
    integers in {-1, 0, 1}; all are exact in bfloat16, so the cheaper product loses nothing but the
    rounding of its sums. The backward pass is the straight-through estimator: the derivative of
    rounding, and of what is cut off, is taken to be 1.
    """

    @staticmethod
    def forward(ctx, x: Tensor, dtype: torch.dtype, is_int4: bool, *weights: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        if is_int4:
            token_scale = math.sqrt(7) / flat.abs().mean(-1, keepdim=True).clamp(min=1e-5)
            x_int = (flat * token_scale).round().clamp(-8, 7).to(dtype)
        else:
            token_scale = 127 / flat.abs().amax(-1, keepdim=True).clamp(min=1e-5)
            x_int = (flat * token_scale).round().clamp(-128, 127).to(dtype)
        ternary, row_scale = [], []
        for weight in weights:
            scale = 1 / weight.abs().mean().clamp(min=1e-5)
            ternary.append((weight * scale).round().clamp(-1, 1).to(dtype))
            row_scale.append((1 / scale).expand(weight.shape[0]))
        matrix, rows = torch.cat(ternary), torch.cat(row_scale)
        ctx.save_for_backward(x_int, token_scale, matrix, rows)
        ctx.sizes = [weight.shape[0] for weight in weights]
        y = (x_int @ matrix.T).float() * (rows / token_scale)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_int, token_scale, matrix, rows = ctx.saved_tensors
        flat = grad.reshape(-1, grad.shape[-1])
        grad_x = ((flat * rows).to(matrix.dtype) @ matrix).float()
        grad_w = ((flat / token_scale).to(matrix.dtype).T @ x_int).float()
        return grad_x.view(*grad.shape[:-1], -1), None, None, *grad_w.split(ctx.sizes)


def larger_half(x: Tensor) -> Tensor:
    """x with zeros for the smaller half of each token's magnitudes."""
    kept = x.abs().topk((x.shape[-1] + 1) // 2, dim=-1).indices
    return x * torch.zeros_like(x).scatter(-1, kept, 1.0)


def new_weights() -> Weights:
    """Random weights, under the names they have in the checkpoint."""
    width, inner, head = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["head_dim"]
    q_size, kv_size = CONFIG["num_attention_heads"] * head, CONFIG["num_key_value_heads"] * head
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens": (CONFIG["vocab_size"], width)}
    for n in range(CONFIG["num_hidden_layers"]):
        shapes[f"layers.{n}.input_layernorm"] = (width,)
        shapes[f"layers.{n}.self_attn.q_proj"] = (q_size, width)
        shapes[f"layers.{n}.self_attn.k_proj"] = (kv_size, width)
        shapes[f"layers.{n}.self_attn.v_proj"] = (kv_size, width)
        shapes[f"layers.{n}.self_attn.o_proj"] = (width, q_size)
        shapes[f"layers.{n}.self_attn.attn_sub_norm"] = (q_size,)
        shapes[f"layers.{n}.post_attention_layernorm"] = (width,)
        shapes[f"layers.{n}.mlp.gate_proj"] = (inner, width)
        shapes[f"layers.{n}.mlp.up_proj"] = (inner, width)
        shapes[f"layers.{n}.mlp.down_proj"] = (width, inner)
        shapes[f"layers.{n}.mlp.ffn_sub_norm"] = (inner,)
    shapes["norm"] = (width,)
    weights = {}
    for name, shape in shapes.items():
        weight = torch.ones(shape)
        if len(shape) == 2:
            weight.normal_(std=CONFIG["initializer_range"])
        weights[f"model.{name}.weight"] = weight.requires_grad_()
    return weights


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, CONFIG["rms_norm_eps"])


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def attention(x: Tensor, w: Weights, cos: Tensor, sin: Tensor, numbers: Numbers) -> Tensor:
    projections = [w[f"self_attn.{name}_proj"] for name in "qkv"]
    qkv = BitLinear.apply(x, *numbers, *projections).split([p.shape[0] for p in projections], -1)
    q, k, v = (t.unflatten(-1, (-1, CONFIG["head_dim"])).transpose(1, 2) for t in qkv)
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    # Each key/value head serves a run of neighbouring query heads.
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    y = rms_norm(y.transpose(1, 2).flatten(2), w["self_attn.attn_sub_norm"])
    y = larger_half(y) if numbers.is_a48 else y
    return BitLinear.apply(y, numbers.dtype, False, w["self_attn.o_proj"])


def mlp(x: Tensor, w: Weights, numbers: Numbers) -> Tensor:
    gate, up = BitLinear.apply(x, *numbers, w["mlp.gate_proj"], w["mlp.up_proj"]).chunk(2, -1)
    y = rms_norm(F.relu(gate).square() * up, w["mlp.ffn_sub_norm"])
    return BitLinear.apply(y, numbers.dtype, False, w["mlp.down_proj"])


def logits_of(weights: Weights, tokens: Tensor, numbers: Numbers) -> Tensor:
    """Run the decoder."""
    head = CONFIG["head_dim"]
    frequency = CONFIG["rope_theta"] ** (-torch.arange(0, head, 2).float() / head)
    angle = torch.outer(torch.arange(tokens.shape[1]).float(), frequency).repeat(1, 2)
    cos, sin = angle.cos(), angle.sin()
    x = F.embedding(tokens, weights["model.embed_tokens.weight"])
    for n in range(CONFIG["num_hidden_layers"]):
        prefix, suffix = f"model.layers.{n}.", ".weight"
        w = {k[len(prefix) : -len(suffix)]: v for k, v in weights.items() if k.startswith(prefix)}
        x = x + attention(rms_norm(x, w["input_layernorm"]), w, cos, sin, numbers)
        x = x + mlp(rms_norm(x, w["post_attention_layernorm"]), w, numbers)
    x = rms_norm(x, weights["model.norm.weight"]).to(numbers.dtype)
    return (x @ weights["model.embed_tokens.weight"].to(numbers.dtype).T).float()


def load_folder(folder: Path) -> Weights:
    saved = load_file(folder / "model.safetensors")
    return {name: weight.float() for name, weight in saved.items()}


def save_folder(folder: Path, weights: Weights, tokenizer: Tokenizer, is_a48: bool) -> None:
    tensors = {name: weight.detach().bfloat16() for name, weight in weights.items()}
    files = {"model.safetensors": save(tensors, metadata={"format": "pt"})}
    config = dict(CONFIG)
    if is_a48:
        added = {"activation_quantization": "a4.8"}
        config["quantization_config"] = CONFIG["quantization_config"] | added
    files |= {"config.json": training.as_json(config)}
    training.write_files(folder, files | training.tokenizer_files(tokenizer))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("tiny"), help="folder to write")
    parser.add_argument("--a48", action="store_true", help="train --source on to BitNet a4.8")
    parser.add_argument("--source", type=Path, default=TINY, help="what --a48 begins with")
    training.add_arguments(parser, steps=6500)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    exact = Numbers(is_a48=args.a48)
    if args.a48:
        tokenizer = Tokenizer.from_file(str(args.source / "tokenizer.json"))
        text = training.read_text(CONFIG["vocab_size"], tokenizer)
        weights = {name: w.requires_grad_() for name, w in load_folder(args.source).items()}
        for name, numbers in (("8-bit activations", Numbers()), ("those of a4.8", exact)):
            decode = partial(logits_of, weights, numbers=numbers)
            bits = training.model_bits(decode, text.held_out) / text.size
            print(f"{args.source.name} with {name}: {bits:.3f} bits per byte", flush=True)
    else:
        text = training.read_text(CONFIG["vocab_size"])
        weights = new_weights()
    training.train(
        lambda tokens: logits_of(weights, tokens, Numbers(torch.bfloat16, args.a48)),
        [weight for name, weight in weights.items() if "_proj" in name],
        [weight for name, weight in weights.items() if "_proj" not in name],
        [np.append(ids, CONFIG["eos_token_id"]) for ids in text.train],
        args,
    )
    save_folder(args.output, weights, text.tokenizer, args.a48)
    weights = load_folder(args.output)
    return training.judge(lambda tokens: logits_of(weights, tokens, exact), text)


if __name__ == "__main__":
    sys.exit(main())
