"""Low-bit layers in PyTorch: train a small network with them, then run it on packed weights.

    python examples/short/layers.py        # pip install '.[torch]'

The task: which of two spirals a point of the plane lies on.
"""

import numpy as np
import torch
from torch import nn

from ternops.torch import BitLinear, TernaryLinear, replace_linear, to_ternary

torch.manual_seed(0)
torch.set_num_threads(1)
random = np.random.default_rng(0)


def spirals(count):
    """Points, with the waves that a network of this size needs to see, and 0 or 1."""
    which = random.integers(0, 2, count)
    turn = 3 * np.pi * np.sqrt(random.random(count))
    angle = turn + np.pi * which
    points = np.stack([turn * np.cos(angle), turn * np.sin(angle)], 1) / 10
    waves = [np.sin(points * 2**k * f) for k in range(4) for f in (1.0, 1.5)]
    return torch.tensor(np.concatenate([points, *waves], 1)).float(), torch.tensor(which)


model = nn.Sequential(nn.Linear(18, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
replace_linear(model, BitLinear, rms_norm=True)  # weights -1, 0, 1 and a scale; activations int8
optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
for _ in range(600):
    x, y = spirals(256)
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

x, y = spirals(2000)
with torch.no_grad():
    trained = model(x)
    right = (trained.argmax(1) == y).float().mean()
    print(f"trained: more than 95% right: {bool(right > 0.95)}")

    to_ternary(model)  # the same function, on this CPU's kernels
    packed = model(x)
    same = (packed.argmax(1) == trained.argmax(1)).float().mean()
    layers = [each for each in model.modules() if isinstance(each, TernaryLinear)]
    print(f"packed: {len(layers)} layers, more than 99.5% of answers alike: {bool(same > 0.995)}")
