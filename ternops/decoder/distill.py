"""Making a delta of two checkpoints, and fitting its scales to the logits of the second."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ternops.bitdelta import delta
from ternops.decoder.config import Config
from ternops.decoder.deltas import Delta, fingerprint, first_row
from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.model import Model
from ternops.decoder.weights import HalfMatrix
from ternops.encodings.two_bit import TWO_BIT
from ternops.matrix import TernaryMatrix, pack

Array = npt.NDArray[Any]

#: Logits of a token that scales are fitted to: those of its likeliest successors.
LIKELIEST = 64
_STEPS = 4
# Of a scale: how far it is moved to see what that does. int8 activations hide a smaller change.
_MOVED = 0.1
_DAMPING, _MAX_DAMPING = 1e-3, 1e3


def make_delta(
    base: Checkpoint, tuned: Checkpoint, progress: Callable[[int, int], None] | None = None
) -> tuple[Delta, list[str]]:
    """One bit a weight of what tells `tuned` from `base`, each scale the mean magnitude of the
    difference; and the names of what differs as well and is left as the base has it.

    Float matrices are taken as they are, float32 of the base rounded to float16; ternary ones as
    trits times scales. Raises ValueError for another architecture, other shapes, and as both
    checkpoints do.
    """
    _check_alike(base.config, tuned.config)
    config = base.config
    layers: list[dict[str, TernaryMatrix]] = []
    rows = {}
    of_base, of_tuned = base.is_float, tuned.is_float
    for number in range(config.layers):
        layers.append({})
        for name in config.linear_shapes(number):
            held = _matrix(base, number, name, of_base)
            rows[number, name] = first_row(held)
            other = _matrix(tuned, number, name, of_tuned).to_dense()
            layers[-1][name] = delta(held, other).signs
        if progress:
            progress(number + 1, config.layers)
    return Delta(layers, fingerprint(config, rows)), sorted(set(_left(base, tuned)))


def _matrix(
    checkpoint: Checkpoint, layer: int, name: str, is_float: bool
) -> TernaryMatrix | HalfMatrix:
    if is_float:
        return checkpoint.half(layer, name)
    return pack(*checkpoint.trits(layer, name), TWO_BIT.name)


def _check_alike(base: Config, tuned: Config) -> None:
    for name in ("architecture", "layers", "heads", "kv_heads", "vocabulary", "activation"):
        wanted, found = getattr(base, name), getattr(tuned, name)
        if wanted != found:
            raise ValueError(f"tuned: {name} {found!r}, expected the base's {wanted!r}")
    for layer in range(base.layers):
        found, wanted = tuned.linear_shapes(layer), base.linear_shapes(layer)
        for name in wanted:
            if found.get(name) != wanted[name]:
                raise ValueError(
                    f"tuned: {name} in layer {layer} has shape {found.get(name)}, expected the "
                    f"base's {wanted[name]}"
                )


def _left(base: Checkpoint, tuned: Checkpoint) -> Iterator[str]:
    """What differs apart from linear layers."""
    config = base.config
    for layer in range(config.layers):
        for kind, names, read in (
            ("norms", config.norm_sizes(layer), "norm"),
            ("biases", config.bias_sizes(layer), "bias"),
            ("vectors", config.vector_shapes(layer), "vector"),
        ):
            for name in names:
                pair = (getattr(each, read)(layer, name) for each in (base, tuned))
                if not np.array_equal(*pair):
                    yield kind
    if not np.array_equal(base.final_norm(), tuned.final_norm()):
        yield "norms"
    if _tables_differ(base.embedding(), tuned.embedding()):
        yield "embedding"
    if tuned.config.tied:
        if not config.tied:
            yield "head"
    elif config.tied or _tables_differ(base.head(), tuned.head()):
        yield "head"


def _tables_differ(one: HalfMatrix | TernaryMatrix, other: HalfMatrix | TernaryMatrix) -> bool:
    return not np.array_equal(one.to_dense(), other.to_dense())


def distill(
    model: Model, name: str, tokens: Sequence[int], target: Array, steps: int = _STEPS
) -> tuple[Delta, list[float]]:
    """The delta `name` of a model with scales for which its logits after each token are closest to
    `target`, float32 (tokens, vocabulary), the fine-tuned model's (arXiv 2402.10193, section 3.1,
    where Adam takes the steps); and the mean squared error before and after each step.

    The error is that of the LIKELIEST logits of each token. A step is one of Levenberg and
    Marquardt: each scale is moved a little to see what that does to the logits, and the
    least-squares change of all is made if it makes the error smaller. The model's own scales are
    changed as well.
    Raises ValueError for a target of another shape or with NaN, and for an unknown name.
    """
    if target.shape != (len(tokens), model.config.vocabulary) or not np.isfinite(target).all():
        raise ValueError(
            f"target: shape {target.shape}, expected finite logits of shape "
            f"{(len(tokens), model.config.vocabulary)}"
        )
    scales = model.deltas.scales(name)
    most = min(LIKELIEST, target.shape[1])
    chosen = np.argpartition(target, -most, axis=1)[:, -most:]
    wanted = np.take_along_axis(target, chosen, 1).astype(np.float64).ravel()
    used = np.flatnonzero(scales)

    def logits(values: Array) -> Array:
        scales[...] = values.reshape(scales.shape)
        found = np.take_along_axis(model.logits(tokens, name), chosen, 1)
        return found.astype(np.float64).ravel()

    best = scales.ravel().copy()
    found, damping = logits(best), _DAMPING
    errors = [float(np.mean((wanted - found) ** 2))]
    for _ in range(steps):
        slopes = np.empty((len(wanted), len(used)))
        for column, at in enumerate(used):
            moved = best.copy()
            moved[at] += np.float32(_MOVED) * best[at]
            slopes[:, column] = (logits(moved) - found) / (float(moved[at]) - float(best[at]))
        square, down = slopes.T @ slopes, slopes.T @ (wanted - found)
        while damping <= _MAX_DAMPING:
            change = np.linalg.lstsq(square + damping * np.diag(np.diag(square)), down)[0]
            tried = best.copy()
            tried[used] += change.astype(np.float32)
            after = logits(tried)
            error = float(np.mean((wanted - after) ** 2))
            if error < errors[-1]:
                best, found, damping = tried, after, damping / 10
                errors.append(error)
                break
            damping *= 10
        else:
            break
    scales[...] = best.reshape(scales.shape)
    return model.deltas.with_scales(name), errors
