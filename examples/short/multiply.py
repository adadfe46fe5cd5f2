"""Multiply with a matrix of your own: rounded to trits, or exact where it has trits already.

python examples/short/multiply.py
"""

import numpy as np

import ternops

random = np.random.default_rng(0)
weights = random.standard_normal((1024, 2048)).astype(np.float32)  # yours: np.load("weights.npy")
x = random.standard_normal((4, 2048)).astype(np.float32)

# Rounding weights that were not trained for it loses half of the product, in groups or not:
for group in (None, 128):
    W = ternops.quantize(weights, group=group)
    error = np.linalg.norm(x @ W.T - x @ weights.T) / np.linalg.norm(x @ weights.T)
    print(f"group={group}: {weights.nbytes / W.nbytes:.1f} times smaller, {error:.0%} error")

# Trits and integers are multiplied exactly, whatever the CPU and the threads.
trits = random.integers(-1, 2, (1024, 2048)).astype(np.int8)
T = ternops.pack(trits)
tokens = random.integers(-128, 128, (4, 2048)).astype(np.int8)
assert np.array_equal(tokens @ T.T, tokens.astype(np.int64) @ trits.T)
print(f"{T.encoding}, {T.bits_per_weight:.1f} bits a weight: exact")
