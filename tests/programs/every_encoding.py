"""Compute a model's logits with its weights in every encoding; prints "alive".

python -m tests.programs.every_encoding MODEL
"""

from __future__ import annotations

import sys

from ternops.decoder import Model

if __name__ == "__main__":
    for weights in ("ternary", "two_bit", "base3", "tl1", "tl2", "fp16"):
        Model.from_pretrained(sys.argv[1], weights=weights, threads=2).logits([0, 5, 9])
    print("alive")
