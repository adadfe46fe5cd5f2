"""What the examples that train share: the text, its tokenizer, the baselines, the loop, the score.

The text is the .py files of the interpreter that runs this, so nothing is downloaded. About one
file in twenty, chosen by a hash of its path, is never shown to the tokenizer, to a model or to the
baselines.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
BOS_ID, EOS_ID = 0, 1
CONTEXT = 512  # tokens that a model sees at most
# (part of the training done, row length, weight decay): short rows first, as they are faster.
STAGES = ((0.0, 256, 0.1), (0.5, CONTEXT, 0.0))
IGNORED = -100  # a target that is not scored

#: From tokens (sequences, length) to logits (sequences, length, vocabulary) in float32.
Logits = Callable[[Tensor], Tensor]


class Text(NamedTuple):
    """train, held_out: tokens of each file; size: bytes of the held-out files; byte_bigram,
    token_bigram: bits that a bigram model of bytes, of tokens, needs for one of these bytes."""

    tokenizer: Tokenizer
    train: list[np.ndarray]
    held_out: list[np.ndarray]
    size: int
    byte_bigram: float
    token_bigram: float


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


def train_tokenizer(texts: list[str], vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # so that any byte can be encoded
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, BOS_ID)]
    )
    return tokenizer


def read_text(vocabulary: int, tokenizer: Tokenizer | None = None) -> Text:
    """The standard library as tokens, with the baselines; says how much there is of it.

    tokenizer: that of a model that has one already, of so many tokens.
    """
    train_texts, test_texts = read_sources()
    tokenizer = tokenizer or train_tokenizer(train_texts, vocabulary)
    train = [np.array(e.ids, np.int32) for e in tokenizer.encode_batch(train_texts)]
    held_out = [np.array(e.ids, np.int32) for e in tokenizer.encode_batch(test_texts)]
    size = sum(len(text.encode()) for text in test_texts)
    print(
        f"{len(train)} training files, {sum(map(len, train))} tokens; "
        f"{len(held_out)} held-out files, {sum(map(len, held_out))} tokens, {size} bytes"
    )

    def as_bytes(texts: list[str]) -> list[np.ndarray]:
        return [np.array([256, *text.encode()]) for text in texts]  # 256 marks the beginning

    byte_bigram = bigram_bits(as_bytes(train_texts), as_bytes(test_texts), 257) / size
    token_bigram = bigram_bits(train, held_out, vocabulary) / size
    print(f"bits per byte: byte bigram {byte_bigram:.3f}, token bigram {token_bigram:.3f}")
    return Text(tokenizer, train, held_out, size, byte_bigram, token_bigram)


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


def batches(
    documents: list[np.ndarray], length: int, tokens: int, rng: np.random.Generator
) -> Iterator[Tensor]:
    """Endless batches of so many tokens; a row has one more token, its last target."""
    while True:
        stream = np.concatenate([documents[i] for i in rng.permutation(len(documents))])
        rows = np.lib.stride_tricks.sliding_window_view(stream, length + 1)
        rows = rows[rng.integers(length) :: length]
        order, size = rng.permutation(len(rows)), tokens // length
        for start in range(0, len(order) - size + 1, size):
            yield torch.from_numpy(rows[order[start : start + size]].astype(np.int64))


def loss_of(logits_of: Logits, rows: Tensor) -> Tensor:
    return F.cross_entropy(logits_of(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


def fast(logits_of: Logits, weights: Sequence[Tensor], length: int, tokens: int) -> Logits:
    """The decoder through torch.compile, or as it is where there is no C++ compiler."""
    try:
        rows = torch.zeros(tokens // length, length + 1, dtype=torch.long)
        decode = torch.compile(logits_of, dynamic=False)
        loss_of(decode, rows).backward()
    except Exception as error:  # the errors of the compiler have no common base class
        print(f"torch.compile does not work here ({type(error).__name__}), going on without it")
        decode = logits_of
    for weight in weights:
        weight.grad = None
    return decode


def add_arguments(parser: argparse.ArgumentParser, steps: int) -> None:
    """What `train` is told by the command line."""
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--tokens", type=int, default=4096, help="tokens a step")
    parser.add_argument("--minutes", type=float, default=math.inf, help="train no longer than this")
    parser.add_argument("--lr", type=float, default=8e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)


def train(
    logits_of: Logits,
    ternary: list[Tensor],
    others: list[Tensor],
    documents: list[np.ndarray],
    args: argparse.Namespace,
    begin: Callable[[float], None] | None = None,
) -> None:
    """Change the weights: `ternary` are those of ternary linear layers.

    begin: called before each step with the part of the training that is done. What it changes
    would be compiled anew each time, so with it nothing is.
    """
    # Muon suits the ternary matrices: it changes all directions of a matrix at a similar rate.
    # The weight decay keeps their weights easy to flip early on and is switched off half-way.
    muon = torch.optim.Muon(ternary, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    rng = np.random.default_rng(args.seed)
    stages = iter(STAGES)
    next_stage = next(stages)
    began, limit = time.perf_counter(), 60 * args.minutes
    losses: list[float] = []
    while (done := max(len(losses) / args.steps, (time.perf_counter() - began) / limit)) < 1:
        if next_stage and done >= next_stage[0]:
            _, length, muon.param_groups[0]["weight_decay"] = next_stage
            next_stage = next(stages, None)
            data = batches(documents, length, args.tokens, rng)
            decode = logits_of
            if begin is None:
                decode = fast(logits_of, ternary + others, length, args.tokens)
        if begin is not None:
            begin(done)
        loss = loss_of(decode, next(data))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(ternary + others, 1.0)
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
                f"{len(losses) * args.tokens / elapsed:6.0f} tokens/s  "
                f"{elapsed * (1 / done - 1) / 60:4.1f} min left",
                flush=True,
            )
    minutes = (time.perf_counter() - began) / 60
    print(f"trained on {len(losses) * args.tokens / 1e6:.1f} M tokens in {minutes:.1f} minutes")


def tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """What a Hugging Face folder has of a tokenizer, by name."""
    config = {
        "bos_token": BOS,
        "eos_token": EOS,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": as_json(config),
        "generation_config.json": as_json({"bos_token_id": BOS_ID, "eos_token_id": EOS_ID}),
    }


def as_json(content: object) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():  # each file appears whole or not at all
        temporary = folder / f"{name}.tmp"
        temporary.write_bytes(data)
        os.replace(temporary, folder / name)


@torch.no_grad()
def model_bits(logits_of: Logits, sequences: list[np.ndarray]) -> float:
    """Total bits of the sequences; every token sees at least half a window of text before it."""
    rows, targets = [], []
    for sequence in sequences:
        for start in range(0, max(len(sequence) - 1 - CONTEXT // 2, 1), CONTEXT // 2):
            row = sequence[start : start + CONTEXT + 1]
            row = np.pad(row, (0, CONTEXT + 1 - len(row)), constant_values=IGNORED)
            target = row[1:].copy()
            target[: CONTEXT // 2 if start else 0] = IGNORED  # the previous window scored these
            rows.append(np.maximum(row[:-1], 0))
            targets.append(target)
    total = 0.0
    for start in range(0, len(rows), 16):
        logits = logits_of(torch.from_numpy(np.stack(rows[start : start + 16])).long())
        target = torch.from_numpy(np.stack(targets[start : start + 16])).long().flatten()
        losses = F.cross_entropy(logits.flatten(0, 1), target, reduction="none")
        total += losses.double().sum().item()
    return total / math.log(2)


@torch.no_grad()
def generate(logits_of: Logits, tokenizer: Tokenizer, prompt: str, count: int = 80) -> str:
    ids = tokenizer.encode(prompt).ids
    while count and ids[-1] != EOS_ID:
        ids.append(int(logits_of(torch.tensor([ids]))[0, -1].argmax()))
        count -= 1
    return tokenizer.decode(ids)


def judge(logits_of: Logits, text: Text) -> int:
    """Say how well a model does on the held-out files; an exit code, 0 if at most 75% of the bits
    of the byte bigram model."""
    bits = model_bits(logits_of, text.held_out) / text.size
    print(f"the saved model: {bits:.3f} bits per byte on the held-out files")
    print(f"  {bits / text.byte_bigram:.1%} of the byte bigram (at most 75% required)")
    print(f"  {bits / text.token_bigram:.1%} of the token bigram")
    print(generate(logits_of, text.tokenizer, "def "))
    return 0 if bits <= 0.75 * text.byte_bigram else 1
