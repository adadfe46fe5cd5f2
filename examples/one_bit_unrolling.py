"""Compressed sensing by unrolled networks whose layers are sparse matrices of signs.

After "Unlocking Efficient Large Inference Models: One-Bit Unrolling Tips the Scales" (Eamaz,
Yeganegi, Soltanalian, arXiv 2502.01908; from its third version on "Physics-Inspired Binary Neural
Networks"): an iteration of a solver becomes a layer; the physics of the problem, not pruning, says
which links a layer has; each link is a sign, and one scale serves the whole network. So a link
costs less than one bit, where BitNet's ternary layers cost 1.58. What pruning makes of networks
that could be this sparse: "Sparsest Models Elude Pruning" (Zhang, Papyan, ICML 2024).

The problem, which is ours: 512 unknowns in 8 blocks, one in ten is not zero, 32 measurements of
each block, y = A x + noise at 40 dB, A of random signs. A layer is a step of ISTA (LISTA with
coupled weights, as in Chen et al., NeurIPS 2018): x <- soft(x + W (y - A x), t). W has links only
within blocks, one in eight of all. Networks of each depth are trained:

- one-bit: signs within blocks are learned (straight through, from those of A), and one scale
- signs of A: the same, but only the scale and the thresholds are learned
- float: W is float32 within blocks
- ternary: W may have any link; BitNet b1.58's absmean of each layer, from A as well

With 16 layers, one-bit has an error of -12.5 dB at 0.125 bits a link (0.156 as stored, with the
padding of blocks), signs of A -10.0 dB at the same, float -14.1 dB at 4 bits. Ternary has -10.0 dB
at 0.68 (1.63 as stored): where A has no link it has learned next to none. 16 steps of FISTA end at
-8.8 dB.

They are trained with int8 activations, a step a sample, as ternops' kernels compute them: each
product is exact in int32. Errors are those of ternops' products, of blocks in `one_bit`; with the
whole matrix and its zeros in `base3` they are the same to the last bit.

    pip install -e '.[bench,train]'
    python examples/one_bit_unrolling.py

Writes results/one-bit-unrolling/: results.json and the picture. `--draw` draws that again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import ternops
from ternops.files import replaced

Array = npt.NDArray[Any]
#: Floats (samples, inputs) to floats (samples, outputs).
Product = Callable[[Array], Array]

RESULTS = Path(__file__).resolve().parents[1] / "results" / "one-bit-unrolling"
BLOCKS, UNKNOWNS, MEASUREMENTS = 8, 64, 32  # the latter two of a block
DENSITY, NOISE = 0.1, 0.01  # of x, and relative to the measurements
DEPTHS = (1, 2, 4, 8, 16)
TEST = 2000  # samples
#: Of learning. Ternary layers of all links need less the deeper the network is: the better counts.
RATE, TERNARY_RATES = 1e-2, (1e-3, 2e-4)
ONE_BIT, SIGNS, FLOAT, TERNARY = KINDS = ("one-bit", "signs of A", "float", "ternary")


class Problem(NamedTuple):
    """signs: int8 (blocks, measurements, unknowns), A is their diagonal over sqrt(measurements)."""

    signs: Array

    @property
    def scale(self) -> float:
        return 1 / math.sqrt(self.signs.shape[1])


class Network(NamedTuple):
    """weights: of each layer (blocks, unknowns, measurements), or (1, all, all) without blocks;
    int8 unless they are floats, which have the scale 1."""

    weights: list[Array]
    scale: float
    thresholds: list[float]


def new_problem(blocks: int, unknowns: int, measurements: int, seed: int = 0) -> Problem:
    random = np.random.default_rng(seed)
    return Problem(random.choice(np.array([-1, 1], np.int8), (blocks, measurements, unknowns)))


def draw_samples(problem: Problem, count: int, seed: int) -> tuple[Array, Array]:
    """Unknowns and measurements, float32 (count, all of them)."""
    random = np.random.default_rng(seed)
    blocks, _, unknowns = problem.signs.shape
    shape = (count, blocks, unknowns)
    x = random.standard_normal(shape, np.float32) * (random.random(shape) < DENSITY)
    y = np.einsum("bij,tbj->tbi", problem.signs, x) * np.float32(problem.scale)
    y += NOISE * y.std() * random.standard_normal(y.shape, np.float32)
    return x.reshape(count, -1), y.reshape(count, -1)


def soft(x: Array, threshold: float) -> Array:
    """The proximal operator of the L1 norm."""
    return np.sign(x) * np.maximum(np.abs(x) - np.float32(threshold), 0)


def recover(
    y: Array, sensing: Product, layers: Sequence[Product], thresholds: list[float]
) -> Array:
    """The unknowns, by the unrolled network."""
    x = soft(layers[0](y), thresholds[0])  # from x = 0
    for layer, threshold in zip(layers[1:], thresholds[1:], strict=True):
        x = soft(x + layer(y - sensing(x)), threshold)
    return x


def to_int8(x: Array) -> tuple[Array, Array]:
    """Codes and the step of each sample: the largest magnitude is 127 steps."""
    step = np.maximum(np.abs(x).max(axis=1, keepdims=True), np.float32(1e-30)) / np.float32(127)
    return np.rint(x / step).astype(np.int8), step


def packed_blocks(weights: Array, scale: float) -> list[ternops.TernaryMatrix]:
    return [ternops.pack(block, np.float32(scale), "one_bit") for block in weights]


def diagonal(blocks: Array) -> Array:
    """The whole matrix, with zeros where there are no links."""
    count, rows, columns = blocks.shape
    whole = np.zeros((count, rows, count, columns), blocks.dtype)
    whole[range(count), :, range(count)] = blocks
    return whole.reshape(count * rows, count * columns)


def block_product(weights: Array, scale: float) -> Product:
    """On ternops' kernels, block by block; float weights in NumPy."""
    if weights.dtype != np.int8:
        return lambda x: _steps(x, lambda codes: codes @ diagonal(weights).T)
    packed = packed_blocks(weights, scale)

    def product(codes: Array) -> Array:
        parts = np.split(codes, len(packed), axis=1)
        outputs = [ternops.matmul(part, block.T) for part, block in zip(parts, packed, strict=True)]
        return np.concatenate(outputs, axis=1)

    return lambda x: _steps(x, product)


def whole_product(weights: Array, scale: float) -> Product:
    """On ternops' kernels, with the zeros."""
    packed = ternops.pack(diagonal(weights), np.float32(scale), "base3")
    return lambda x: _steps(x, lambda codes: ternops.matmul(codes, packed.T))


def _steps(x: Array, product: Callable[[Array], Array]) -> Array:
    codes, step = to_int8(x)
    return product(codes) * step


def run(problem: Problem, network: Network, y: Array, is_whole: bool = False) -> Array:
    """`recover` on ternops' kernels. is_whole: of matrices with their zeros, in base3."""
    of = whole_product if is_whole else block_product
    of_layer = whole_product if len(network.weights[0]) == 1 else of  # without blocks
    layers = [of_layer(each, network.scale) for each in network.weights]
    return recover(y, of(problem.signs, problem.scale), layers, network.thresholds)


def error_db(x: Array, found: Array) -> float:
    """The squared error of all samples relative to the unknowns."""
    return float(10 * np.log10(np.square(found - x).sum() / np.square(x).sum()))


def solver_db(problem: Problem, x: Array, y: Array, steps: int, is_fast: bool) -> float:
    """ISTA or FISTA in float, with the best of some regularisers."""
    matrix = diagonal(problem.signs) * np.float32(problem.scale)
    most = np.linalg.norm(matrix, 2) ** 2
    errors = []
    for weight in (0.3, 0.1, 0.05, 0.02, 0.01, 0.005):
        found = ahead = np.zeros_like(x)
        pace = 1.0
        for _ in range(steps):
            new = soft(ahead + (y - ahead @ matrix.T) @ matrix / most, weight / most)
            next_pace = (1 + math.sqrt(1 + 4 * pace * pace)) / 2 if is_fast else 1.0
            ahead, found, pace = new + (pace - 1) / next_pace * (new - found), new, next_pace
        errors.append(error_db(x, found))
    return min(errors)


def entropy(values: Array) -> float:
    """Bits of one value, each coded by how often it occurs."""
    shares = np.unique(values, return_counts=True)[1] / values.size
    return float(-(shares * np.log2(shares)).sum())


def bits_a_link(network: Network) -> dict[str, float]:
    """Bits over all pairs of an input and an output: by entropy, and as stored.

    Where there are links is known from the problem, so that zeros between blocks need no bits.
    """
    weights = np.stack(network.weights)
    links = weights.size * weights.shape[1]  # of the whole matrices
    share = weights.size / links
    if weights.dtype != np.int8:
        return {"entropy": 32 * share, "stored": 32 * share}
    if weights.shape[1] == 1:
        packed = [ternops.pack(diagonal(each), encoding="base3") for each in weights]
    else:
        packed = [block for each in weights for block in packed_blocks(each, network.scale)]
    stored = 8 * sum(each.unscaled.nbytes for each in packed)
    return {"entropy": share * entropy(weights), "stored": stored / links}


def train(
    problem: Problem, kind: str, depth: int, steps: int, rate: float = RATE, batch: int = 128
) -> tuple[Network, Callable[[Array], Array]]:
    """A network, and the same in torch: measurements to unknowns."""
    import torch

    torch.manual_seed(depth)
    signs = torch.from_numpy(problem.signs).float()
    sensing, count = signs * problem.scale, len(signs)
    start = problem.signs.swapaxes(1, 2).astype(np.float32)
    start = diagonal(start)[None] if kind == TERNARY else start
    weights = torch.from_numpy(start).repeat(depth, 1, 1, 1) * (1 if kind == FLOAT else 0.1)
    weights.requires_grad_(kind != SIGNS)
    # Both change by a share of themselves.
    log_scale = torch.tensor(math.log(0.35 * problem.scale)).requires_grad_()
    log_thresholds = torch.full((depth,), math.log(0.12)).requires_grad_()

    def quantised() -> Any:
        if kind == FLOAT:
            return weights
        if kind == TERNARY:
            ratio = weights / weights.detach().abs().mean((1, 2, 3), keepdim=True)
            values = ratio.detach().round().clamp(-1, 1)
            return values + (ratio - ratio.detach())
        return torch.where(weights >= 0, 1.0, -1.0) + (weights - weights.detach())

    def int8(x: Any) -> Any:
        step = x.detach().abs().amax((0, 2), keepdim=True).clamp(min=1e-30) / 127
        return x + ((x / step).round() * step - x).detach()

    def forward(y: Any) -> Any:
        """Blocks first: (blocks, samples, measurements) to (blocks, samples, unknowns)."""
        layers, thresholds = quantised() * log_scale.exp(), log_thresholds.exp()
        x = torch.zeros(count, y.shape[1], signs.shape[2])
        for number in range(depth):
            rest = int8(y - int8(x) @ sensing.mT if number else y)
            if kind == TERNARY:
                rest = rest.transpose(0, 1).flatten(1)
                change = (rest @ layers[number, 0].T).unflatten(1, (count, -1)).transpose(0, 1)
            else:
                change = rest @ layers[number].mT
            x = x + change
            x = x.sign() * torch.relu(x.abs() - thresholds[number])
        return x

    def turned(array: Array) -> Any:
        return torch.from_numpy(array).unflatten(1, (count, -1)).transpose(0, 1)

    groups = [([log_scale, log_thresholds], 1e-2), ([weights] * (kind != SIGNS), rate)]
    optimizer = torch.optim.Adam([{"params": each, "lr": lr} for each, lr in groups])
    for step in range(steps):
        for group, (_, lr) in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
        x, y = map(turned, draw_samples(problem, batch, 1000 + step))
        loss = (forward(y) - x).square().sum() / x.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        values, scale = quantised(), math.exp(log_scale.item())
        values = values * scale if kind == FLOAT else values.to(torch.int8)
    network = Network(
        [each.numpy() for each in values],
        1.0 if kind == FLOAT else scale,
        log_thresholds.exp().tolist(),
    )

    @torch.no_grad()
    def in_torch(y: Array) -> Array:
        return forward(turned(y)).transpose(0, 1).flatten(1).numpy()

    return network, in_torch


def measure(problem: Problem, kind: str, depth: int, steps: int) -> dict[str, Any]:
    """What is found of one network."""
    began = time.perf_counter()
    x, y = draw_samples(problem, TEST, seed=1)

    def trained(rate: float) -> tuple[Network, Callable[[Array], Array], Array]:
        network, in_torch = train(problem, kind, depth, steps, rate)
        return network, in_torch, run(problem, network, y)

    rates = TERNARY_RATES if kind == TERNARY else (RATE,)
    network, in_torch, found = min(map(trained, rates), key=lambda each: error_db(x, each[-1]))
    row = {"network": kind, "depth": depth, "error_db": error_db(x, found),
           "torch_db": error_db(x, in_torch(y)), **bits_a_link(network)}  # fmt: skip
    if kind in (ONE_BIT, SIGNS):
        row["same_in_base3"] = bool((found == run(problem, network, y, is_whole=True)).all())
        start = problem.signs.swapaxes(1, 2)
        row["flipped"] = float(np.mean([each != start for each in network.weights]))
    if kind == TERNARY:
        row["zeros"] = float(np.mean([each == 0 for each in network.weights]))
    print(f"{row}, {time.perf_counter() - began:.0f} s", flush=True)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=1000, help="of training, 128 samples each")
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder to write")
    parser.add_argument("--draw", action="store_true", help="draw the results that are there")
    args = parser.parse_args()
    path = args.output / "results.json"
    if not args.draw:
        problem = new_problem(BLOCKS, UNKNOWNS, MEASUREMENTS)
        rows = [
            measure(problem, kind, depth, args.steps) for depth in args.depths for kind in KINDS
        ]
        x, y = draw_samples(problem, TEST, seed=1)
        rows += [
            {"network": name, "depth": depth, "error_db": solver_db(problem, x, y, depth, is_fast)}
            for name, is_fast in (("ISTA", False), ("FISTA", True))
            for depth in args.depths
        ]
        args.output.mkdir(parents=True, exist_ok=True)
        found = {"blocks": BLOCKS, "unknowns": UNKNOWNS, "measurements": MEASUREMENTS,
                 "density": DENSITY, "noise": NOISE, "steps": args.steps, "rows": rows}  # fmt: skip
        with replaced(path) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    from pictures import draw_unrolling

    print(*draw_unrolling(json.loads(path.read_text("utf-8")), args.output), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
