"""Float matrices that nothing declares: trits times scales already, or to be rounded to them.

Only what gives back every float exactly counts as trits times scales: one of the matrix, of each
row, or of each group of a row's inputs. Magnitudes that differ by a last bit are two scales: a
product that was rounded to float16 or bfloat16 has one, since each of its elements was rounded from
the same number.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ternops.absmean import METHODS, absmean, absmean_groups
from ternops.decoder.formats.scales import GROUPS, Floats, Trits, fewest_scales
from ternops.shown import shown

_WEIGHTS_AT_ONCE = 1 << 22
_MAX_SHARDS = 8  # of the inputs of a matrix


def check_method(quantize: str | None) -> None:
    """Raises ValueError for anything but METHODS and None."""
    if quantize is not None and quantize not in tuple(METHODS):
        raise ValueError(f"quantize={shown(quantize)}: expected {' or '.join(map(repr, METHODS))}")


def trits_of_floats(weight: Floats, name: str, quantize: str | None) -> tuple[Trits, Floats]:
    """Trits and the scale, of a shape of `fewest_scales`, of a finite matrix (rows, columns).

    What is no product of trits and scales is rounded by absmean if `quantize` says so; without, it
    is a ValueError that names the tensor and the option.
    """
    if (exact := exact_product(weight)) is not None:
        return exact
    if quantize is None:
        raise ValueError(
            f"checkpoint: {name} {_description(weight)}: --quantize absmean "
            "(quantize='absmean') rounds it to one scale a matrix"
        )
    group = METHODS[quantize]
    if not group:
        trits, scale = absmean(weight)
        return trits, np.asarray(scale)
    if weight.shape[1] % group:
        raise ValueError(
            f"checkpoint: {name} has {weight.shape[1]} inputs, expected a multiple of the {group} "
            f"of quantize={shown(quantize)}"
        )
    return absmean_groups(weight, group)


def exact_product(weight: Floats) -> tuple[Trits, Floats] | None:
    """The trits and the fewest scales of a matrix that is their product already; else None.

    Falcon-E's bfloat16 files are: absmean would take the mean for their scale, zeros included.
    """
    return exact_product_of(weight.shape, lambda part: weight[part])


def exact_product_of(
    shape: tuple[int, ...], rows_of: Callable[[slice], Floats]
) -> tuple[Trits, Floats] | None:
    """The same of a matrix whose rows are made float32 some at a time."""
    rows, columns = shape
    width = columns if columns % GROUPS[-1] else GROUPS[-1]
    trits = np.empty(shape, np.int8)
    scales = np.empty((rows, columns // width), np.float32)
    step = max(1, _WEIGHTS_AT_ONCE // columns)
    for start in range(0, rows, step):
        part = rows_of(slice(start, start + step))
        size = np.abs(part).reshape(len(part), -1, width)
        most = size.max(axis=2)
        if not ((size == most[:, :, None]) | (size == 0)).all():
            return None
        scales[start : start + step] = most
        trits[start : start + step] = np.sign(part)
    return trits, fewest_scales(scales, scales > 0, columns)


def _description(weight: Floats) -> str:
    """What a matrix is that is no product of trits and scales."""
    columns = weight.shape[1]
    for inputs in sorted({-(-columns // count) for count in range(2, _MAX_SHARDS + 1)})[::-1]:
        parts = [weight[:, at : at + inputs] for at in range(0, columns, inputs)]
        if inputs >= GROUPS[-1] and all(_has_row_scales(part) for part in parts):
            expected = ", ".join(map(str, GROUPS))
            return f"is ternary with one scale for {inputs} inputs, expected a row or {expected}"
    return "is not ternary"


def _has_row_scales(weight: Floats) -> bool:
    """Whether each row has one magnitude."""
    size = np.abs(weight)
    return bool(((size == size.max(axis=1, keepdims=True)) | (size == 0)).all())
