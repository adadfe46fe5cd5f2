"""Error against memory: a float model as residual blocks, of which more and more are used.

Decomposes a model twice, with a text that shows which inputs are active and without, then lets each
of some sizes of memory count (`Model.limit`, no file is opened twice) and measures on another text
how well the model predicts it. Draws the perplexity, and the relative error of the weights, and
notes all figures beside the picture.

    python examples/stack_memory.py MODEL --calibration TEXT --text TEXT --output results/stacks

MODEL: what `python -m ternops stack` takes, with float weights.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from ternops.decoder import Model
from ternops.decoder.calibration import activations, float_matrix
from ternops.decoder.formats.convert_stack import stack_model
from ternops.decoder.formats.loading import load_weights, open_checkpoint
from ternops.decoder.formats.paths import locate
from ternops.decoder.formats.stack_file import open_packed
from ternops.decoder.perplexity import negative_log_likelihoods, perplexity, windows
from ternops.files import replaced

POINTS = 25
_COLORS = {"activations": "#0072B2", "weights alone": "#E69F00"}


def perplexity_of(model: Model, parts: list[list[int]]) -> float:
    losses: list[float] = []
    for window in parts:
        losses += negative_log_likelihoods(model.logits(window)[:-1], window[1:])
    return perplexity(losses)


def weight_error(model: Model, dense: dict[Any, Any]) -> float:
    """The root of the mean over matrices of the squared relative error."""
    found = [
        (np.linalg.norm(model.weights.layers[layer].linear[name].to_dense() - each)
         / np.linalg.norm(each)) ** 2
        for (layer, name), each in dense.items()
    ]  # fmt: skip
    return float(np.sqrt(np.mean(found)))


def curve(path: Path, parts: list[list[int]], dense: dict[Any, Any]) -> list[dict[str, float]]:
    file, model = open_packed(path), Model.from_pretrained(path)
    sizes = file.sizes
    chosen = sorted({sizes[round(at)] for at in np.linspace(0, len(sizes) - 1, POINTS)})
    weights = model.config.linear_weights
    points = []
    for size in chosen:
        model.limit(size)
        points.append(
            {
                "bytes": size,
                "bits a weight": 8 * model.weights.linear_bytes / weights,
                "perplexity": perplexity_of(model, parts),
                "weight error": weight_error(model, dense),
            }
        )
    return points


def draw(path: Path, curves: dict[str, Any], whole: dict[str, float], title: str) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, points in curves.items():
        bits = [each["bits a weight"] for each in points]
        for axis, key in zip(axes, ("perplexity", "weight error"), strict=True):
            axis.plot(bits, [each[key] for each in points], "o-", ms=3.5, lw=1.3,
                      color=_COLORS[name], label=f"sorted and scaled by {name}")  # fmt: skip
    axes[0].axhline(
        whole["perplexity"], color="0.4", lw=1, ls="--",
        label=f"float16, 16 bits: {whole['perplexity']:.2f}",
    )  # fmt: skip
    for axis, name in zip(axes, ("perplexity", "relative error of the weights"), strict=True):
        axis.set_yscale("log")
        axis.set_ylabel(name)
        axis.set_xlabel("bits a weight of the linear layers, factors included")
        axis.grid(alpha=0.3, which="both")
        axis.legend(frameon=False)
    figure.suptitle(title)
    with replaced(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--calibration", type=Path, required=True, help="UTF-8 to decompose by")
    parser.add_argument("--text", type=Path, required=True, help="UTF-8 to predict")
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--rank", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("results/stacks"))
    args = parser.parse_args()
    source = locate(args.model)
    checkpoint = open_checkpoint(source)
    config, tokenizer = checkpoint.config, checkpoint.tokenizer()
    given, parts = (
        list(windows(tokenizer, path.read_text("utf-8"), min(256, config.context)))
        for path in (args.calibration, args.text)
    )
    keys = [(at, name) for at in range(config.layers) for name in config.linear_shapes(at)]
    dense = {key: float_matrix(checkpoint, *key) for key in keys}
    half = Model(load_weights(checkpoint, "half"))
    whole = {"bytes": half.bytes_per_token, "perplexity": perplexity_of(half, parts)}
    seen = {"activations": activations(checkpoint, iter(given)), "weights alone": None}
    curves = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, each in seen.items():
            path = Path(folder, "stack")
            stack_model(checkpoint, source, path, args.blocks, args.rank, each)
            curves[name] = curve(path, parts, dense)
    args.output.mkdir(parents=True, exist_ok=True)
    figures = {
        "model": f"{config.architecture}, {config.layers} layers, hidden {config.hidden}",
        "blocks": args.blocks, "rank": args.rank, "tokens": sum(map(len, parts)),
        "float16": whole, "curves": curves,
    }  # fmt: skip
    with replaced(args.output / "memory.json") as temporary:
        temporary.write_text(json.dumps(figures, indent=1) + "\n")
    title = f"{figures['model']}: residual blocks of rank {args.rank}"
    draw(args.output / "memory.png", curves, whole, title)
    for name, points in curves.items():
        for each in points:
            print(f"{name:14s}", *(f"{key} {value:.4g} " for key, value in each.items()))
    print("float16", whole)
    return 0


if __name__ == "__main__":
    sys.exit(main())
