"""Bit Diffusion with self-conditioning on 8 x 8 digits, by a ternary network.

"Analog Bits: Generating Discrete Data using Diffusion Models with Self-Conditioning" (Chen, Zhang,
Hinton, arXiv 2208.04202). Pixels of 4 bits become 256 analog bits, -1.0 or 1.0 (section 2.1); a
network that sees them with noise predicts them, and sees its own last prediction as well, in half
of the training steps (2.2, algorithm 1); samples are made by DDIM steps whose noise levels are a
little apart, "asymmetric time intervals" (2.3, algorithm 2); the signs of the last prediction are
the bits.

The data are the digits that ship with scikit-learn; their grey levels 0 to 16 are cut at 15. The
network is a residual MLP of the digit and the time, and small. All its linear layers are BitNet's,
as in train_tiny.py: ternary weights with one scale, int8 activations with a step a sample. It is
trained by torch and samples by ternops' kernels, with NumPy for the rest. The bits of the data are
packed by `one_bit`; how many bits two images differ in is an exact product of signs.

    pip install -e '.[bench,train]'
    python examples/analog_bits.py

Writes results/analog-bits/: results.json and a picture of samples. `--draw` draws that again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import ternops
from ternops.files import replaced

Array = npt.NDArray[Any]
#: Analog bits with noise, the last prediction, the time of each sample, its class -> prediction.
Denoiser = Callable[[Array, Array, Array, Array], Array]

RESULTS = Path(__file__).resolve().parents[1] / "results" / "analog-bits"
BITS, PIXELS, CLASSES = 4, 64, 10
ANALOG = BITS * PIXELS
WIDTH, INNER, LAYERS, FEATURES = 384, 768, 3, 64
HELD_OUT = 360  # images, one in five
STEPS, APART = 50, 1.0  # of sampling; what algorithm 2 calls td
PER_CLASS, SHOWN = 40, 10  # samples


class Weights(NamedTuple):
    """Trits (outputs, inputs) and their scale by name; float32 vectors and tables by name."""

    ternary: dict[str, tuple[Array, float]]
    floats: dict[str, Array]


def to_bits(pixels: Array) -> Array:
    """Integers below 16 (images, 64) -> int8 signs (images, 256), a pixel's highest bit first."""
    bits = pixels[..., None].astype(np.int64) >> np.arange(BITS)[::-1] & 1
    return (2 * bits - 1).astype(np.int8).reshape(len(pixels), -1)


def to_pixels(analog: Array) -> Array:
    """The inverse, of anything whose signs are bits."""
    bits = (analog > 0).reshape(len(analog), -1, BITS)
    return (bits << np.arange(BITS)[::-1]).sum(axis=2).astype(np.int8)


def signal_share(time: Array | float) -> Array:
    """gamma of the cosine schedule, from 1 at time 0 to nearly 0 at time 1 (appendix)."""
    return np.cos((np.asarray(time) + 0.0002) / 1.00025 * np.pi / 2) ** 2


def sample(
    denoiser: Denoiser,
    classes: Array,
    noise: Array,
    steps: int = STEPS,
    is_conditioned: bool = True,
) -> Array:
    """The last predictions of analog bits (algorithm 2). is_conditioned: on the one before."""
    x, predicted = noise.astype(np.float32), np.zeros_like(noise, np.float32)
    for step in range(steps):
        now, after = 1 - step / steps, max(1 - (step + 1 + APART) / steps, 0.0)
        seen = predicted if is_conditioned else np.zeros_like(predicted)
        times = np.full(len(x), now, np.float32)
        predicted = np.clip(denoiser(x, seen, times, classes), -1, 1)
        share, next_share = signal_share(now), signal_share(after)
        rest = (x - np.sqrt(share) * predicted) / np.sqrt(1 - share)
        x = (np.sqrt(next_share) * predicted + np.sqrt(1 - next_share) * rest).astype(np.float32)
    return predicted


def shapes() -> dict[str, tuple[int, int]]:
    """Of the ternary layers: (outputs, inputs)."""
    found = {"input": (WIDTH, 2 * ANALOG), "time": (WIDTH, FEATURES)}
    for layer in range(LAYERS):
        found |= {f"up{layer}": (INNER, WIDTH), f"down{layer}": (WIDTH, INNER)}
    return {**found, "output": (ANALOG, WIDTH)}


def time_features(times: Array) -> Array:
    """Sines and cosines, float32 (samples, FEATURES)."""
    pace = 1000 * np.exp(-math.log(1e4) * np.linspace(0, 1, FEATURES // 2, endpoint=False))
    angles = times[:, None] * pace
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def forward(
    library: Any,
    linear: Callable[[str, Any], Any],
    floats: dict[str, Any],
    inputs: Any,
    features: Any,
    classes: Any,
) -> Any:
    """The network, in NumPy or torch (`library`)."""

    def normed(x: Any) -> Any:
        return x / library.sqrt((x * x).mean(-1)[..., None] + 1e-5)

    where = linear("time", features) + floats["classes"][classes]
    x = linear("input", inputs)
    for layer in range(LAYERS):
        inner = linear(f"up{layer}", normed(x + where))
        inner = library.where(inner > 0, inner, 0 * inner)
        x = x + linear(f"down{layer}", normed(inner))
    return linear("output", normed(x)) + floats["bias"]


def on_kernels(weights: Weights) -> Denoiser:
    """The network on ternops' kernels."""
    packed = {name: ternops.pack(trits, np.float32(scale), "base3")
              for name, (trits, scale) in weights.ternary.items()}  # fmt: skip

    def denoise(x: Array, predicted: Array, times: Array, classes: Array) -> Array:
        inputs = np.concatenate([x, predicted], axis=1)
        features = time_features(times)
        return forward(np, lambda name, each: each @ packed[name].T, weights.floats, inputs,
                       features, classes)  # fmt: skip

    return denoise


def differing_bits(bits: Array, data: ternops.TernaryMatrix) -> Array:
    """How many bits each image of signs differs in from each packed one: int32 (images, packed)."""
    return (ANALOG - ternops.matmul(bits, data.T)) // 2


def pack_bits(bits: Array) -> ternops.TernaryMatrix:
    return ternops.pack(bits, encoding="one_bit")


def load_digits() -> tuple[Array, Array]:
    """Pixels below 16 (images, 64) and their digits, in a mixed order; the first are held out."""
    from sklearn import datasets

    found = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    return np.minimum(found.data, 15).astype(np.int8)[order], found.target[order]


class TorchNetwork:
    """The network in torch, whose ternary weights are float ones that are rounded each time."""

    def __init__(self, seed: int) -> None:
        import torch

        torch.manual_seed(seed)
        self.ternary = {
            name: (torch.randn(shape) / math.sqrt(shape[1])).requires_grad_()
            for name, shape in shapes().items()
        }
        self.floats = {"classes": (0.5 * torch.randn(CLASSES, WIDTH)).requires_grad_(),
                       "bias": torch.zeros(ANALOG).requires_grad_()}  # fmt: skip

    def linear(self, name: str, x: Any) -> Any:
        """int8 activations and absmean trits; derivatives go straight through."""
        steps = 127 / x.detach().abs().amax(-1, keepdim=True).clamp(min=1e-30)
        weight = self.ternary[name]
        scale = weight.detach().abs().mean()
        trits = (weight.detach() / scale).round().clamp(-1, 1)
        x = x + ((x * steps).round() / steps - x).detach()
        return x @ (weight + (trits * scale - weight).detach()).T

    def __call__(self, x: Any, predicted: Any, times: Array, classes: Any) -> Any:
        import torch

        inputs, features = torch.cat([x, predicted], 1), torch.from_numpy(time_features(times))
        return forward(torch, self.linear, self.floats, inputs, features, classes)

    def weights(self) -> Weights:
        found = {}
        for name, weight in self.ternary.items():
            weight = weight.detach()
            scale = weight.abs().mean()
            trits = (weight / scale).round().clamp(-1, 1).numpy().astype(np.int8)
            found[name] = trits, float(scale)
        return Weights(found, {name: each.detach().numpy() for name, each in self.floats.items()})

    def denoiser(self) -> Denoiser:
        """The same as `on_kernels`, in torch."""
        import torch

        @torch.no_grad()
        def denoise(x: Array, predicted: Array, times: Array, classes: Array) -> Array:
            tensors = (torch.from_numpy(each) for each in (x, predicted))
            return self(*tensors, times, torch.from_numpy(classes)).numpy()

        return denoise


def train(bits: Array, digits: Array, steps: int, batch: int = 128, seed: int = 0) -> TorchNetwork:
    """Algorithm 1."""
    import torch

    network, random = TorchNetwork(seed), np.random.default_rng(seed)
    # Later steps are averaged away by a falling rate; Adam, as the matrices are small.
    groups = [(list(network.ternary.values()), 2e-3), (list(network.floats.values()), 1e-3)]
    optimizer = torch.optim.Adam([{"params": each, "lr": rate} for each, rate in groups])
    began, losses = time.perf_counter(), []
    for step in range(steps):
        for group, (_, rate) in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] = rate * min(1, step / 100) * (1 + math.cos(math.pi * step / steps)) / 2
        chosen = random.integers(len(bits), size=batch)
        clean, classes = torch.from_numpy(bits[chosen]).float(), torch.from_numpy(digits[chosen])
        times = random.random(batch, np.float32)
        share = torch.from_numpy(signal_share(times)).float()[:, None]
        noise = torch.from_numpy(random.standard_normal(clean.shape, np.float32))
        x = share.sqrt() * clean + (1 - share).sqrt() * noise
        predicted = torch.zeros_like(x)
        if random.random() < 0.5:
            with torch.no_grad():
                predicted = network(x, predicted, times, classes).clamp(-1, 1)
        loss = (network(x, predicted, times, classes) - clean).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 250 == 0:
            spent = time.perf_counter() - began
            print(f"step {step + 1}: loss {np.mean(losses[-250:]):.4f}, {spent:.0f} s", flush=True)
    return network


def measure(steps: int) -> dict[str, Any]:
    """What is found, and some samples and images, a hexadecimal digit a pixel."""
    from sklearn.svm import SVC

    pixels, digits = load_digits()
    bits, (test, rest) = to_bits(pixels), (slice(HELD_OUT), slice(HELD_OUT, None))
    network = train(bits[rest], digits[rest], steps)
    weights = network.weights()
    ours, theirs = on_kernels(weights), network.denoiser()
    classes = np.repeat(np.arange(CLASSES), PER_CLASS)
    noise = np.random.default_rng(1).standard_normal((len(classes), ANALOG), np.float32)
    made = {"conditioned": sample(ours, classes, noise),
            "not conditioned": sample(ours, classes, noise, is_conditioned=False)}  # fmt: skip
    judge = SVC(gamma=0.001, random_state=0).fit(pixels[rest], digits[rest])
    data = pack_bits(bits[rest])
    found = np.where(made["conditioned"] > 0, 1, -1).astype(np.int8)
    times = np.full(len(classes), 0.5, np.float32)
    one = [each(noise, np.zeros_like(noise), times, classes) for each in (ours, theirs)]
    by_torch = sample(theirs, classes, noise)
    trits = np.concatenate([each.ravel() for each, _ in weights.ternary.values()])
    packed = sum(
        ternops.pack(each, encoding="base3").nbytes for each, _ in weights.ternary.values()
    )
    return {
        "training images": len(bits[rest]), "training steps": steps, "sampling steps": STEPS,
        "weights": trits.size, "zeros": float(np.mean(trits == 0)),
        "bits a weight": 8 * packed / trits.size,
        "bytes of the data": {"pixels": pixels[rest].nbytes, "one_bit": data.nbytes},
        "recognised": {
            "held-out images": float(judge.score(pixels[test], digits[test])),
            **{name: float(judge.score(to_pixels(each), classes)) for name, each in made.items()},
        },
        "bits to the nearest training image, median": {
            "samples": float(np.median(differing_bits(found, data).min(axis=1))),
            "held-out images": float(np.median(differing_bits(bits[test], data).min(axis=1))),
        },
        "kernels and torch": {
            "largest difference of a prediction": float(np.abs(one[0] - one[1]).max()),
            "median difference of a prediction": float(np.median(np.abs(one[0] - one[1]))),
            "same bits of samples": float(np.mean((by_torch > 0) == (found > 0))),
        },
        "samples": as_text(to_pixels(found), classes),
        "images": as_text(pixels[test], digits[test]),
    }  # fmt: skip


def as_text(pixels: Array, digits: Array) -> dict[str, list[str]]:
    """The first SHOWN images of each digit."""
    texts = np.array(["".join(f"{each:x}" for each in image) for image in pixels])
    return {str(each): texts[digits == each][:SHOWN].tolist() for each in range(CLASSES)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=3000, help="of training, 128 images each")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder to write")
    parser.add_argument("--draw", action="store_true", help="draw the results that are there")
    args = parser.parse_args()
    path = args.output / "results.json"
    if not args.draw:
        found = measure(args.steps)
        args.output.mkdir(parents=True, exist_ok=True)
        with replaced(path) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    from pictures import draw_digits

    print(*draw_digits(json.loads(path.read_text("utf-8")), args.output), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
