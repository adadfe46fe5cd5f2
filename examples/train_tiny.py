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
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn

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


# ---- text ------------------------------------------------------------------------------------


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
    before = np.concatenate([sequence[:-1] for sequence in held_out])
    after = np.concatenate([sequence[1:] for sequence in held_out])
    return min(
        -np.log2(
            (counts[before, after] + strength * unigram[after]) / (totals[before] + strength)
        ).sum()
        for strength in (0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256)
    )


# ---- model -----------------------------------------------------------------------------------


class BitLinearFunction(torch.autograd.Function):
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


class Weight(nn.Module):
    """A bare parameter, so that the tensor is called `<module>.weight` as in the checkpoint."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(*shape))
        if len(shape) == 2:
            nn.init.normal_(self.weight, std=CONFIG["initializer_range"])


def rms_norm(x: Tensor, norm: Weight) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], norm.weight, CONFIG["rms_norm_eps"])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width, head = CONFIG["hidden_size"], CONFIG["head_dim"]
        heads, kv_heads = CONFIG["num_attention_heads"], CONFIG["num_key_value_heads"]
        self.sizes = [heads * head, kv_heads * head, kv_heads * head]
        self.q_proj, self.k_proj, self.v_proj = (Weight(size, width) for size in self.sizes)
        self.o_proj = Weight(width, self.sizes[0])
        self.attn_sub_norm = Weight(width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
        weights = (self.q_proj.weight, self.k_proj.weight, self.v_proj.weight)
        qkv = BitLinearFunction.apply(x, dtype, *weights).split(self.sizes, dim=-1)
        q, k, v = (t.unflatten(-1, (-1, CONFIG["head_dim"])).transpose(1, 2) for t in qkv)
        q, k = (t * cos + rotate_half(t) * sin for t in (q, k))
        # Each key/value head serves a run of neighbouring query heads.
        k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = rms_norm(y.transpose(1, 2).flatten(2), self.attn_sub_norm)
        return BitLinearFunction.apply(y, dtype, self.o_proj.weight)


def rotate_half(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
        self.gate_proj, self.up_proj = Weight(inner, width), Weight(inner, width)
        self.down_proj = Weight(width, inner)
        self.ffn_sub_norm = Weight(inner)

    def forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        both = BitLinearFunction.apply(x, dtype, self.gate_proj.weight, self.up_proj.weight)
        gate, up = both.chunk(2, dim=-1)
        y = rms_norm(F.relu(gate).square() * up, self.ffn_sub_norm)
        return BitLinearFunction.apply(y, dtype, self.down_proj.weight)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm = Weight(CONFIG["hidden_size"])
        self.self_attn = Attention()
        self.post_attention_layernorm = Weight(CONFIG["hidden_size"])
        self.mlp = MLP()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, dtype: torch.dtype) -> Tensor:
        x = x + self.self_attn(rms_norm(x, self.input_layernorm), cos, sin, dtype)
        return x + self.mlp(rms_norm(x, self.post_attention_layernorm), dtype)


class BitNet(nn.Module):
    """The decoder. `dtype` is the type of the matrix products; everything else is float32."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.embed_tokens = Weight(CONFIG["vocab_size"], CONFIG["hidden_size"])
        self.layers = nn.ModuleList(Layer() for _ in range(CONFIG["num_hidden_layers"]))
        self.norm = Weight(CONFIG["hidden_size"])
        head = CONFIG["head_dim"]
        frequency = CONFIG["rope_theta"] ** (-torch.arange(0, head, 2).float() / head)
        angle = torch.outer(torch.arange(CONFIG["max_position_embeddings"]).float(), frequency)
        angle = torch.cat((angle, angle), dim=-1)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = F.embedding(tokens, self.embed_tokens.weight)
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, cos, sin, self.dtype)
        x = rms_norm(x, self.norm).to(self.dtype)
        return (x @ self.embed_tokens.weight.to(self.dtype).T).float()


def loss_of(model: nn.Module, rows: Tensor) -> Tensor:
    return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


# ---- training --------------------------------------------------------------------------------


def batches(documents: list[np.ndarray], length: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """Endless batches of TOKENS_PER_STEP tokens, each row with one more token as last target."""
    while True:
        stream = np.concatenate([documents[i] for i in rng.permutation(len(documents))])
        rows = np.lib.stride_tricks.sliding_window_view(stream, length + 1)
        rows = rows[rng.integers(length) :: length]
        order, size = rng.permutation(len(rows)), TOKENS_PER_STEP // length
        for start in range(0, len(order) - size + 1, size):
            yield torch.from_numpy(rows[order[start : start + size]].astype(np.int64))


def compiled(model: nn.Module, length: int) -> nn.Module:
    """The model through torch.compile, or the model itself where there is no C++ compiler."""
    try:
        fast = torch.compile(model, dynamic=False)
        rows = torch.zeros(TOKENS_PER_STEP // length, length + 1, dtype=torch.long)
        loss_of(fast, rows).backward()
    except Exception as error:  # the compiler's errors have no common base class
        print(f"torch.compile is not available here ({type(error).__name__}), going on without it")
        torch.compiler.reset()
        fast = model
    model.zero_grad()
    return fast


def train(model: BitNet, documents: list[np.ndarray], args: argparse.Namespace) -> None:
    # Muon suits the ternary matrices: it changes all directions of a matrix at a similar rate.
    # The weight decay keeps their weights easy to flip early on and is switched off half-way.
    ternary = [p for n, p in model.named_parameters() if n.endswith("_proj.weight")]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": [model.embed_tokens.weight]}, {"params": vectors}]
    optimizers = (
        torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
        torch.optim.Muon(ternary, adjust_lr_fn="match_rms_adamw"),
    )
    rng = np.random.default_rng(args.seed)
    began = shown = time.perf_counter()
    stage, step, shown_step, losses = -1, 0, 0, []
    while True:
        elapsed = time.perf_counter() - began
        done = max(step / args.steps, elapsed / (60 * args.minutes))
        if done >= 1:
            break
        if stage < (now := sum(done >= start for start, _, _ in STAGES) - 1):
            stage = now
            _, length, optimizers[1].param_groups[0]["weight_decay"] = STAGES[stage]
            data = batches(documents, length, rng)
            forward = model if args.eager else compiled(model, length)
        rate = args.lr * min(done / 0.02, (1 + math.cos(math.pi * done)) / 2)
        loss = loss_of(forward, next(data))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate if isinstance(optimizer, torch.optim.Muon) else rate / 2
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        step += 1
        if step % 100 == 0:
            now_time = time.perf_counter()
            speed = (step - shown_step) * TOKENS_PER_STEP / (now_time - shown)
            left = min((now_time - began) * (1 / done - 1), 60 * args.minutes) if done else 0
            print(
                f"step {step:5d}  {done:4.0%}  loss {np.mean(losses):.3f}  "
                f"{speed:6.0f} tokens/s  {left / 60:4.1f} min left",
                flush=True,
            )
            shown, shown_step, losses = now_time, step, []
    minutes = (time.perf_counter() - began) / 60
    print(f"trained on {step * TOKENS_PER_STEP / 1e6:.1f} M tokens in {minutes:.1f} minutes")


# ---- the folder ------------------------------------------------------------------------------


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def save_folder(folder: Path, model: BitNet, tokenizer: Tokenizer) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"model.{name}": tensor.detach().to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
    }
    write_whole(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    write_whole(folder / "tokenizer.json", tokenizer.to_str().encode())
    ids = {"bos_token_id": CONFIG["bos_token_id"], "eos_token_id": CONFIG["eos_token_id"]}
    tokenizer_config = {
        "bos_token": BOS,
        "eos_token": EOS,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONFIG["max_position_embeddings"],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    for name, content in (
        ("config.json", CONFIG),
        ("generation_config.json", ids),
        ("tokenizer_config.json", tokenizer_config),
    ):
        write_whole(folder / name, (json.dumps(content, indent=2) + "\n").encode())


def load_folder(folder: Path) -> tuple[BitNet, Tokenizer]:
    """Read the folder back; the model computes in float32."""
    model = BitNet()
    tensors = load_file(folder / "model.safetensors")
    model.load_state_dict({k.removeprefix("model."): v.float() for k, v in tensors.items()})
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))


@torch.no_grad()
def model_bits(model: BitNet, sequences: list[np.ndarray]) -> float:
    """Total bits of the sequences; every token sees at least half a window of text before it."""
    window = CONFIG["max_position_embeddings"]
    inputs, targets = [], []
    for sequence in sequences:
        for start in range(0, max(len(sequence) - 1 - window // 2, 1), window // 2):
            row = sequence[start : start + window + 1]
            row = np.pad(row, (0, window + 1 - len(row)), constant_values=IGNORED)
            target = row[1:].copy()
            target[: window // 2 if start else 0] = IGNORED  # the previous window scored these
            inputs.append(np.maximum(row[:-1], 0))
            targets.append(target)
    total = 0.0
    for start in range(0, len(inputs), 16):
        logits = model(torch.from_numpy(np.stack(inputs[start : start + 16])))
        target = torch.from_numpy(np.stack(targets[start : start + 16])).long()
        total += F.cross_entropy(
            logits.flatten(0, 1), target.flatten(), ignore_index=IGNORED, reduction="sum"
        ).item()
    return total / math.log(2)


@torch.no_grad()
def generate(model: BitNet, tokenizer: Tokenizer, prompt: str, count: int = 80) -> str:
    ids = tokenizer.encode(prompt).ids
    while count and ids[-1] != CONFIG["eos_token_id"]:
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        count -= 1
    return tokenizer.decode(ids)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("tiny"), help="folder to write")
    parser.add_argument("--steps", type=int, default=6500, help="steps of 4096 tokens")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="finish earlier, after this time"
    )
    parser.add_argument("--lr", type=float, default=8e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--eager", action="store_true", help="do not use torch.compile")
    args = parser.parse_args()
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

    model = BitNet(torch.bfloat16)
    train(model, [np.append(ids, CONFIG["eos_token_id"]) for ids in train_ids], args)
    save_folder(args.output, model, tokenizer)

    model, tokenizer = load_folder(args.output)
    test_ids = [np.array(tokenizer.encode(text).ids, np.int32) for text in test_texts]
    bits = model_bits(model, test_ids) / size
    print(f"the saved model: {bits:.3f} bits per byte on the held-out files")
    print(f"  {bits / byte_bigram:.1%} of the byte bigram (at most 75% required)")
    print(f"  {bits / token_bigram:.1%} of the token bigram")
    print(generate(model, tokenizer, "def "))
    return 0 if bits <= 0.75 * byte_bigram else 1


if __name__ == "__main__":
    sys.exit(main())
