"""Which weights a model with activations of BitNet a4.8 may have, and how many of them count."""

from __future__ import annotations

from collections.abc import Sequence

from ternops.decoder.config import Config
from ternops.decoder.weight_types import WeightType
from ternops.encodings import TERNARY


def check_low(types: Sequence[WeightType]) -> None:
    """Raises ValueError for weights that such activations are not multiplied with."""
    if len(types) > 1 or types[0].encoding not in TERNARY or types[0].group:
        each = (f"{kind.encoding} with groups of {kind.group}" if kind.group else kind.encoding
                for kind in types)  # fmt: skip
        raise ValueError(
            f"weights: {', '.join(each)}, expected ternary ones of one encoding without groups: "
            "the model has activations of a4.8"
        )


def active_weights(config: Config, counts: list[int]) -> int:
    """How many weights COUNTS say that tokens have used: those of which neither the input's code
    nor, of `up`, the gate is 0."""
    rows = {name: shape[0] for name, shape in config.linear_shapes().items()}
    outputs = (rows["q"] + rows["k"] + rows["v"], rows["o"], rows["gate"], rows["down"], 1)
    return sum(count * each for count, each in zip(counts, outputs, strict=True))
