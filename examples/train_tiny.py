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
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
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
TOKENS_PER_STEP = 4096
# (part of the training done, row length, weight decay): short rows first, as they are faster.
STAGES = ((0.0, 256, 0.1), (0.5, 512, 0.0))
IGNORED = -100  # a target that is not scored
Weights = dict[str, Tensor]


def read_sources() -> tuple[list[str], list[str]]:
    """Return the texts of the standard library's files, as (training, held out)."""
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
    train, held_out = [], []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        # _sysconfigdata*.py is written when Python is built and describes that machine.
        if skipped & set(name.parts) or path.name.startswith("_sysconfigdata"):
            continue
        try:
            text = path.read_bytes().decode()  # not read_text, which would change line endings
        except UnicodeDecodeError:
            continue
        if text.strip():
            digest = hashlib.sha256(name.as_posix().encode()).digest()
            (held_out if digest[0] % 20 == 0 else train).append(text)
    # A copy of a held-out file under another name would make the test easier than it looks.
    return [text for text in train if text not in set(held_out)], held_out


def train_tokenizer(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"],
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # so that any byte can be encoded
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, 0)]
    )
    return tokenizer


def bigram_bits(train: list[np.ndarray], held_out: list[np.ndarray], size: int) -> float:
    """Total bits of the held-out sequences under an interpolated bigram model.

    The first symbol of each sequence is context only. Bigram counts are smoothed towards the
    unigram distribution; the strength that suits the held-out text best is taken, which can only
    favour the baseline.
    """
    counts = np.zeros((size, size))
    for sequence in train:
        np.add.at(counts, (sequence[:-1], sequence[1:]), 1)
    unigram = (counts.sum(0) + 1) / (counts.sum() + size)
    totals = counts.sum(1)
    a = np.concatenate([sequence[:-1] for sequence in held_out])
    b = np.concatenate([sequence[1:] for sequence in held_out])
    return min(
        -np.log2((counts[a, b] + strength * unigram[b]) / (totals[a] + strength)).sum()
        for strength in 2.0 ** np.arange(-1, 9)
    )


class BitLinear(torch.autograd.Function):
    """Product of 8-bit activations and one or more ternary matrices that share the input.

    Activations become integers in [-128, 127] and weights integers in {-1, 0, 1}; both are exact
    in bfloat16, so the cheaper product loses nothing but the rounding of its sums. The backward
    pass is the straight-through estimator: the derivative of rounding is taken to be 1.
    """

    @staticmethod
    def forward(ctx, x: Tensor, dtype: torch.dtype, *weights: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
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
        return grad_x.view(*grad.shape[:-1], -1), None, *grad_w.split(ctx.sizes)


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


def attention(x: Tensor, w: Weights, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
    projections = [w[f"self_attn.{name}_proj"] for name in "qkv"]
    qkv = BitLinear.apply(x, dtype, *projections).split([p.shape[0] for p in projections], -1)
    q, k, v = (t.unflatten(-1, (-1, CONFIG["head_dim"])).transpose(1, 2) for t in qkv)
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    # Each key/value head serves a run of neighbouring query heads.
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    y = rms_norm(y.transpose(1, 2).flatten(2), w["self_attn.attn_sub_norm"])
    return BitLinear.apply(y, dtype, w["self_attn.o_proj"])


def mlp(x: Tensor, w: Weights, dtype: torch.dtype) -> Tensor:
    gate, up = BitLinear.apply(x, dtype, w["mlp.gate_proj"], w["mlp.up_proj"]).chunk(2, -1)
    y = rms_norm(F.relu(gate).square() * up, w["mlp.ffn_sub_norm"])
    return BitLinear.apply(y, dtype, w["mlp.down_proj"])


def logits_of(weights: Weights, tokens: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Run the decoder. `dtype` is the type of the matrix products, all else is float32."""
    head = CONFIG["head_dim"]
    frequency = CONFIG["rope_theta"] ** (-torch.arange(0, head, 2).float() / head)
    angle = torch.outer(torch.arange(tokens.shape[1]).float(), frequency).repeat(1, 2)
    cos, sin = angle.cos(), angle.sin()
    x = F.embedding(tokens, weights["model.embed_tokens.weight"])
    for n in range(CONFIG["num_hidden_layers"]):
        prefix, suffix = f"model.layers.{n}.", ".weight"
        w = {k[len(prefix) : -len(suffix)]: v for k, v in weights.items() if k.startswith(prefix)}
        x = x + attention(rms_norm(x, w["input_layernorm"]), w, cos, sin, dtype)
        x = x + mlp(rms_norm(x, w["post_attention_layernorm"]), w, dtype)
    x = rms_norm(x, weights["model.norm.weight"]).to(dtype)
    return (x @ weights["model.embed_tokens.weight"].to(dtype).T).float()


def batches(documents: list[np.ndarray], length: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """Endless batches of TOKENS_PER_STEP tokens; a row has one more token, its last target."""
    while True:
        stream = np.concatenate([documents[i] for i in rng.permutation(len(documents))])
        rows = np.lib.stride_tricks.sliding_window_view(stream, length + 1)
        rows = rows[rng.integers(length) :: length]
        order, size = rng.permutation(len(rows)), TOKENS_PER_STEP // length
        for start in range(0, len(order) - size + 1, size):
            yield torch.from_numpy(rows[order[start : start + size]].astype(np.int64))


def loss_of(decode: Callable[..., Tensor], weights: Weights, rows: Tensor) -> Tensor:
    logits = decode(weights, rows[:, :-1], torch.bfloat16)
    return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def fast_decoder(weights: Weights, length: int) -> Callable[..., Tensor]:
    """The decoder through torch.compile, or as it is where there is no C++ compiler."""
    try:
        rows = torch.zeros(TOKENS_PER_STEP // length, length + 1, dtype=torch.long)
        decode = torch.compile(logits_of, dynamic=False)
        loss_of(decode, weights, rows).backward()
    except Exception as error:  # the errors of the compiler have no common base class
        print(f"torch.compile does not work here ({type(error).__name__}), going on without it")
        decode = logits_of
    for weight in weights.values():
        weight.grad = None
    return decode


def train(weights: Weights, documents: list[np.ndarray], args: argparse.Namespace) -> None:
    # Muon suits the ternary matrices: it changes all directions of a matrix at a similar rate.
    # The weight decay keeps their weights easy to flip early on and is switched off half-way.
    ternary = [w for name, w in weights.items() if "_proj" in name]
    others = [w for name, w in weights.items() if "_proj" not in name]
    muon = torch.optim.Muon(ternary, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    rng = np.random.default_rng(args.seed)
    stages = iter(STAGES)
    next_stage = next(stages)
    began = time.perf_counter()
    losses: list[float] = []
    while (done := max(len(losses) / args.steps, (time.perf_counter() - began) / args.limit)) < 1:
        if next_stage and done >= next_stage[0]:
            _, length, muon.param_groups[0]["weight_decay"] = next_stage
            next_stage = next(stages, None)
            data = batches(documents, length, rng)
            decode = fast_decoder(weights, length)
        loss = loss_of(decode, weights, next(data))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        rate = args.lr * min(done / 0.02, (1 + math.cos(math.pi * done)) / 2)
        for optimizer, factor in ((muon, 1.0), (adam, 0.5)):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        if len(losses) % 100 == 0:
            elapsed = time.perf_counter() - began
            print(
                f"step {len(losses):5d} {done:5.0%}  loss {np.mean(losses[-100:]):.3f}  "
                f"{len(losses) * TOKENS_PER_STEP / elapsed:6.0f} tokens/s  "
                f"{elapsed * (1 / done - 1) / 60:4.1f} min left",
                flush=True,
            )
    minutes = (time.perf_counter() - began) / 60
    print(f"trained on {len(losses) * TOKENS_PER_STEP / 1e6:.1f} M tokens in {minutes:.1f} minutes")


def save_folder(folder: Path, weights: Weights, tokenizer: Tokenizer) -> None:
    tensors = {name: weight.detach().bfloat16() for name, weight in weights.items()}
    ids = {key: CONFIG[key] for key in ("bos_token_id", "eos_token_id")}
    tokenizer_config = {
        "bos_token": BOS,
        "eos_token": EOS,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONFIG["max_position_embeddings"],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    files = {"model.safetensors": save(tensors, metadata={"format": "pt"})}
    files["tokenizer.json"] = tokenizer.to_str().encode()
    for name, content in (
        ("tokenizer_config.json", tokenizer_config),
        ("config.json", CONFIG),
        ("generation_config.json", ids),
    ):
        files[name] = (json.dumps(content, indent=2) + "\n").encode()
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():  # each file appears whole or not at all
        temporary = folder / f"{name}.tmp"
        temporary.write_bytes(data)
        os.replace(temporary, folder / name)


def load_folder(folder: Path) -> tuple[Weights, Tokenizer]:
    weights = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
    return weights, Tokenizer.from_file(str(folder / "tokenizer.json"))


@torch.no_grad()
def model_bits(weights: Weights, sequences: list[np.ndarray]) -> float:
    """Total bits of the sequences; every token sees at least half a window of text before it."""
    window = CONFIG["max_position_embeddings"]
    rows, targets = [], []
    for sequence in sequences:
        for start in range(0, max(len(sequence) - 1 - window // 2, 1), window // 2):
            row = sequence[start : start + window + 1]
            row = np.pad(row, (0, window + 1 - len(row)), constant_values=IGNORED)
            target = row[1:].copy()
            target[: window // 2 if start else 0] = IGNORED  # the previous window scored these
            rows.append(np.maximum(row[:-1], 0))
            targets.append(target)
    total = 0.0
    for start in range(0, len(rows), 16):
        logits = logits_of(weights, torch.from_numpy(np.stack(rows[start : start + 16])))
        target = torch.from_numpy(np.stack(targets[start : start + 16])).long().flatten()
        losses = F.cross_entropy(logits.flatten(0, 1), target, reduction="none")
        total += losses.double().sum().item()
    return total / math.log(2)


@torch.no_grad()
def generate(weights: Weights, tokenizer: Tokenizer, prompt: str, count: int = 80) -> str:
    ids = tokenizer.encode(prompt).ids
    while count and ids[-1] != CONFIG["eos_token_id"]:
        ids.append(int(logits_of(weights, torch.tensor([ids]))[0, -1].argmax()))
        count -= 1
    return tokenizer.decode(ids)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("tiny"), help="folder to write")
    parser.add_argument("--steps", type=int, default=6500, help="steps of 4096 tokens")
    parser.add_argument("--minutes", type=float, default=math.inf, help="train no longer than this")
    parser.add_argument("--lr", type=float, default=8e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    args.limit = 60 * args.minutes
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    train_texts, test_texts = read_sources()
    tokenizer = train_tokenizer(train_texts)
    train_ids = [np.array(e.ids, np.int32) for e in tokenizer.encode_batch(train_texts)]
    test_ids = [np.array(e.ids, np.int32) for e in tokenizer.encode_batch(test_texts)]
    size = sum(len(text.encode()) for text in test_texts)
    print(
        f"{len(train_texts)} training files, {sum(map(len, train_ids))} tokens; "
        f"{len(test_texts)} held-out files, {sum(map(len, test_ids))} tokens, {size} bytes"
    )

    def as_bytes(texts: list[str]) -> list[np.ndarray]:
        return [np.array([256, *text.encode()]) for text in texts]  # 256 marks the beginning

    byte_bigram = bigram_bits(as_bytes(train_texts), as_bytes(test_texts), 257) / size
    token_bigram = bigram_bits(train_ids, test_ids, CONFIG["vocab_size"]) / size
    print(f"bits per byte: byte bigram {byte_bigram:.3f}, token bigram {token_bigram:.3f}")

    weights = new_weights()
    train(weights, [np.append(ids, CONFIG["eos_token_id"]) for ids in train_ids], args)
    save_folder(args.output, weights, tokenizer)

    weights, tokenizer = load_folder(args.output)
    test_ids = [np.array(tokenizer.encode(text).ids, np.int32) for text in test_texts]
    bits = model_bits(weights, test_ids) / size
    print(f"the saved model: {bits:.3f} bits per byte on the held-out files")
    print(f"  {bits / byte_bigram:.1%} of the byte bigram (at most 75% required)")
    print(f"  {bits / token_bigram:.1%} of the token bigram")
    print(generate(weights, tokenizer, "def "))
    return 0 if bits <= 0.75 * byte_bigram else 1


if __name__ == "__main__":
    sys.exit(main())
