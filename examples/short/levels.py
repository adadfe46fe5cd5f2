"""Choose levels: what each number of bits costs, and levels of your own.

python examples/short/levels.py
"""

import numpy as np

import ternops

random = np.random.default_rng(0)
weights = random.standard_normal((512, 4096)).astype(np.float32)  # yours: np.load("weights.npy")


def show(name: str, **options) -> None:
    """Bits a weight with its scales, and the root of the mean square error."""
    W = ternops.quantize(weights, **options)
    error = np.sqrt(np.mean((W.to_dense() - weights) ** 2))
    print(f"{name:22} {W.encoding:10} {W.bits_per_weight:5.2f} bits  error {error:.3f}")


show("signs", encoding="one_bit", group=128)
show("trits", encoding="base3", group=128)
show("trits, least squares", encoding="base3", group=128, method="mse", levels=3)
show("-3, -1, 1, 3", method="mse", levels=(-3, -1, 1, 3), group=128)
show("-4 to 3", encoding="three_bit", group=128, method="mse")
show("NF4", method="nf4", group=64)
# Any sixteen integers from -127 to 127 make a table of one's own; here steps that grow.
mine = (-90, -64, -47, -34, -24, -15, -8, -2, 2, 8, 15, 24, 34, 47, 64, 90)
show("mine", encoding="nibble", method="mse", levels=mine, group=64)
show("-127 to 127", encoding="eight_bit", group=128)
