"""Train a tiny language model whose weights alone are ternary, on the Python standard library.

Any of these trunks, built by transformers from a config: qwen3 (norms of the heads of queries and
keys), llama, qwen2 (biases), gemma3 (windows, GELU, norms of outputs). Each linear layer's weight
goes through a straight-through ternary quantiser: one scale, the mean of magnitudes, for a group of
inputs, a row or a matrix. Activations are not quantised. `--tables ternary` does the same to the
embedding, which is the head as well. The text, the tokenizer and the score are those of
train_tiny.py: see training.py.

The folder is an ordinary one, as transformers writes and opens it, with no word of ternary weights:
they are trits times scales, exactly. Scales are rounded to float16 while the model is trained, and
a weight is its scale, its negative or zero, so that float16 holds every weight as it is; bfloat16
would round the scales to 8 bits.

    pip install torch transformers tokenizers safetensors numpy
    python examples/train_trunk.py --output tiny-qwen3

The checkpoint in tests/checkpoints/tiny-qwen3 was made with `--minutes 36 --threads 1 --seed 0`
(Python 3.11.7, torch 2.13.0, transformers 5.24.0, a third of a core of a busy machine): 1560 steps,
6.4 million tokens. Held-out bits per byte: 1.539, against 3.537 for a byte bigram model (43.5%) and
2.157 for a bigram model over the same tokens (71.3%).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import training
import transformers
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.utils import parametrize

SIZES = {
    "vocab_size": 1024,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": training.CONTEXT,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "bos_token_id": training.BOS_ID,
    "eos_token_id": training.EOS_ID,
    "pad_token_id": None,
}
# Name -> the classes of transformers, and what a config says besides SIZES.
TRUNKS = {
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {"head_dim": 32}),
    "llama": ("LlamaConfig", "LlamaForCausalLM", {"head_dim": 32}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {"num_attention_heads": 4}),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 128,
         "layer_types": ["sliding_attention"] * 3 + ["full_attention"]},
    ),
}  # fmt: skip
MIN_SCALE = 2.0**-14  # the least normal float16


class Ternary(nn.Module):
    """A float matrix as trits times scales; its derivative is taken to be 1 (straight through).

    scale: how many inputs share one, or "row" or "matrix".
    """

    def __init__(self, scale: str) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, weight: Tensor) -> Tensor:
        group = int(self.scale) if self.scale.isdigit() else weight.shape[1]
        parts = weight.detach().unflatten(1, (-1, group))
        shared = (0, 1, 2) if self.scale == "matrix" else 2
        scale = parts.abs().mean(shared, keepdim=True).clamp(min=MIN_SCALE).half().float()
        ternary = ((parts / scale).round().clamp(-1, 1) * scale).flatten(1)
        return ternary + (weight - weight.detach())  # what is added is 0, and has the derivative


def new_model(trunk: str, scale: str, tables: str, sizes: dict[str, Any] = SIZES) -> nn.Module:
    """A random model, with a quantiser on each ternary weight; `scale` "float": on none."""
    config, program, options = TRUNKS[trunk]
    model = getattr(transformers, program)(getattr(transformers, config)(**{**sizes, **options}))
    if scale == "float":
        return model
    linear = [each for each in model.model.layers.modules() if isinstance(each, nn.Linear)]
    ends = [model.model.embed_tokens, model.lm_head] if tables == "ternary" else []
    for module in linear + ends:
        parametrize.register_parametrization(module, "weight", Ternary(scale))
    if ends:
        head, embedding = (each.parametrizations.weight for each in ends[::-1])
        head.original = embedding.original
    return model


def save_folder(folder: Path, model: nn.Module, tokenizer: Tokenizer) -> None:
    """Write the quantised weights; the model has no quantisers from then on."""
    for module in [each for each in model.modules() if parametrize.is_parametrized(each)]:
        parametrize.remove_parametrizations(module, "weight")
    model.tie_weights()
    with tempfile.TemporaryDirectory() as temporary:
        model.half().save_pretrained(temporary)
        names = ("model.safetensors", "config.json")
        files = {name: (Path(temporary) / name).read_bytes() for name in names}
    training.write_files(folder, files | training.tokenizer_files(tokenizer))


def logits_of(model: nn.Module, tokens: Tensor) -> Tensor:
    return model(input_ids=tokens, use_cache=False).logits.float()


def fast_logits_of(model: nn.Module, tokens: Tensor) -> Tensor:
    """The same with matrix products in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        return logits_of(model, tokens)


def train(
    trunk: str,
    scale: str,
    tables: str,
    output: Path,
    text: training.Text,
    args: argparse.Namespace,
    sizes: dict[str, Any] = SIZES,
) -> None:
    """Make the folder of a new model."""
    torch.manual_seed(args.seed)
    model = new_model(trunk, scale, tables, sizes)
    weights = dict(model.named_parameters())
    training.train(
        lambda tokens: fast_logits_of(model, tokens),
        [weight for name, weight in weights.items() if "_proj" in name and weight.ndim == 2],
        [weight for name, weight in weights.items() if "_proj" not in name or weight.ndim == 1],
        [np.append(ids, training.EOS_ID) for ids in text.train],
        args,
    )
    save_folder(output, model, text.tokenizer)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--trunk", choices=TRUNKS, default="qwen3")
    parser.add_argument("--scale", default="128", help="inputs that share a scale, row or matrix")
    parser.add_argument("--tables", choices=("ternary", "float"), default="ternary")
    parser.add_argument("--output", type=Path, default=Path("tiny-trunk"), help="folder to write")
    training.add_arguments(parser, steps=4000)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    text = training.read_text(SIZES["vocab_size"])
    train(args.trunk, args.scale, args.tables, args.output, text, args)
    saved = transformers.AutoModelForCausalLM.from_pretrained(args.output, dtype=torch.float32)
    return training.judge(lambda tokens: logits_of(saved, tokens), text)


if __name__ == "__main__":
    sys.exit(main())
