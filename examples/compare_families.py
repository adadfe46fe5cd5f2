"""What int8 activations cost the perplexity of each family of ternary checkpoints.

Trains a small model of each trunk and kind of scale (train_trunk.py; minutes each), then predicts
the same files of the standard library, which none of them has seen, three times: with ternops'
kernels, in float64 with the same int8 activations, and in float64 with activations as they are.
BitNet's int8 activations are part of the model, which is trained with them: the difference that
counts is to the float64 forward that has them, too. The models of the package and of its tests are
not trained again.

    pip install torch transformers tokenizers safetensors numpy
    python examples/compare_families.py --models families

Writes a CSV file, and prints it as the table of docs/FAMILIES.md. Models that are in the folder
already are only measured.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ternops.decoder import Model, open_checkpoint, reference
from ternops.decoder.perplexity import negative_log_likelihoods, perplexity, windows

ROOT = Path(__file__).resolve().parents[1]
CONTEXT = 512
RESULTS = ROOT / "results" / "families" / "perplexity.csv"


class Family(NamedTuple):
    """like: published models that look so. trunk, scale, tables: see train_trunk.py. folder: of a
    model that is there already."""

    like: str
    trunk: str
    scale: str
    tables: str
    folder: Path | None = None


FAMILIES = {
    "bitnet": Family("BitNet b1.58 2B4T", "bitnet", "matrix", "float",
                     ROOT / "ternops" / "checkpoints" / "tiny"),
    "qwen3-128": Family("Ternary Bonsai", "qwen3", "128", "ternary",
                        ROOT / "tests" / "checkpoints" / "tiny-qwen3"),
    "gemma3-128": Family("-", "gemma3", "128", "ternary"),
    "llama-row": Family("BitCPM", "llama", "row", "float"),
    "llama-matrix": Family("TriLM", "llama", "matrix", "float"),
    "qwen2-matrix": Family("-", "qwen2", "matrix", "float"),
}  # fmt: skip


def train(names: list[str], folder: Path, args: argparse.Namespace) -> None:
    """Make the folders of models that are not there."""
    import torch
    import train_trunk
    import training

    torch.set_num_threads(args.threads)
    settings = argparse.Namespace(
        steps=math.inf, minutes=args.minutes, tokens=4096, lr=8e-3, seed=0
    )
    text = training.read_text(train_trunk.SIZES["vocab_size"])
    for name in names:
        _, *kind, _ = FAMILIES[name]
        train_trunk.train(*kind, folder / name, text, settings)


def texts(folder: Path, count: int) -> list[list[int]]:
    """Whole windows of the held-out files in a model's tokens, from all of them."""
    from training import read_sources  # which imports torch

    tokenizer = open_checkpoint(folder).tokenizer()
    found = [part for text in read_sources()[1] for part in windows(tokenizer, text, CONTEXT)]
    whole = [part for part in found if len(part) == CONTEXT]
    return [whole[at * len(whole) // count] for at in range(count)]


def predicted(logits_of: Callable[[list[int]], Any], parts: list[list[int]]) -> float:
    """The perplexity of all windows together."""
    return perplexity(
        [
            loss
            for tokens in parts
            for loss in negative_log_likelihoods(np.asarray(logits_of(tokens))[:-1], tokens[1:])
        ]
    )


def row_of(name: str, family: Family, folder: Path, count: int) -> dict[str, Any]:
    """What is found of a family."""
    parts = texts(folder, count)
    models = {cache: Model.from_pretrained(folder, cache=cache) for cache in ("fp16", "fp32")}
    model = models["fp16"]
    int8 = predicted(lambda each: reference.logits(model, each, reference.Double), parts)
    floats = predicted(lambda each: reference.logits(model, each, reference.Unquantised), parts)
    is_bitnet, group = family.trunk == "bitnet", model.types[0].group
    asked = int8 if is_bitnet else floats
    found = {cache: predicted(each.logits, parts) for cache, each in models.items()}
    return {
        "model": name,
        "like": family.like,
        "tables": family.tables,
        "a step for": f"{group} inputs" if group else "a token",
        "float64": f"{floats:.4f}",
        "float64, int8": f"{int8:.4f}",
        "ternops": f"{found['fp16']:.4f}",
        "ternops, fp32 cache": f"{found['fp32']:.4f}",
        "difference": f"{found['fp16'] / asked - 1:+.3%}",
    }


def markdown(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of a table."""
    yield "| " + " | ".join(rows[0]) + " |"
    yield "| " + " | ".join("---" for _ in rows[0]) + " |"
    for row in rows:
        yield "| " + " | ".join(map(str, row.values())) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", type=Path, default=Path("families"), help="folder of them")
    parser.add_argument("--minutes", type=float, default=8, help="of training, for each model")
    parser.add_argument("--windows", type=int, default=32, help="of 512 tokens that are predicted")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--output", type=Path, default=RESULTS, help="a CSV file")
    args = parser.parse_args()
    folders = {name: FAMILIES[name].folder or args.models / name for name in args.only}
    missing = [name for name in folders if not (folders[name] / "config.json").is_file()]
    if missing:
        train(missing, args.models, args)
    rows = []
    for name, folder in folders.items():
        rows.append(row_of(name, FAMILIES[name], folder, args.windows))
        print(rows[-1], flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with open(args.output, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(*markdown(rows), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
