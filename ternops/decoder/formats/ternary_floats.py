"""Float matrices that nothing declares: trits times scales already, or to be rounded to them.

Only what gives back every float exactly counts as trits times scales. Magnitudes that differ by a
last bit are two scales: a product that was rounded to float16 or bfloat16 has one, since each of
its elements was rounded from the same number.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ternops.absmean import absmean

Trits = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]

#: What `open_checkpoint` takes for its argument `quantize`, besides None.
METHODS = ("absmean",)

#: Inputs that share a scale in published models.
_GROUPS = (256, 128, 64, 32)
_MAX_SHARDS = 8  # of the inputs of a matrix


def check_method(quantize: str | None) -> None:
    """Raises ValueError for anything but METHODS and None."""
    if quantize is not None and quantize not in METHODS:
        raise ValueError(f"quantize={quantize!r}: expected {' or '.join(map(repr, METHODS))}")


def trits_of_floats(weight: Floats, name: str, quantize: str | None) -> tuple[Trits, Floats]:
    """Trits and the scale, shape () or (rows,), of a finite matrix (rows, columns).

    What is no product of trits and one scale a row is rounded by absmean if `quantize` says so;
    without, it is a ValueError that names the tensor and the option.
    """
    if (exact := exact_product(weight)) is not None:
        return exact
    if quantize is None:
        raise ValueError(
            f"checkpoint: {name} {_description(weight)}: --quantize absmean "
            "(quantize='absmean') rounds it to one scale a matrix"
        )
    trits, scale = absmean(weight)
    return trits, np.asarray(scale)


def exact_product(weight: Floats) -> tuple[Trits, Floats] | None:
    """The trits and the scale, or one a row, of a matrix that is their product already; else None.

    Falcon-E's bfloat16 files are: absmean would take the mean for their scale, zeros included.
    """
    size = np.abs(weight)
    most = size.max(axis=1)
    if not ((size == most[:, None]) | (size == 0)).all():
        return None
    return np.sign(weight).astype(np.int8), row_scales(most, most > 0)


def row_scales(scales: Floats, used: npt.NDArray[np.bool_]) -> Floats:
    """One scale, shape (), where all rows agree, or one a row; a row that is not `used`, since it
    is all zero, has no say."""
    if not used.any():
        return np.ones((), np.float32)
    if (scales[used] == scales[used][0]).all():
        return np.asarray(scales[used][0])
    return np.where(used, scales, np.float32(1))


def _description(weight: Floats) -> str:
    """What a matrix is that has more than one magnitude in a row."""
    columns = weight.shape[1]
    shards = {-(-columns // count) for count in range(2, _MAX_SHARDS + 1)}
    for inputs in sorted(shards | set(_GROUPS), reverse=True):
        if _GROUPS[-1] <= inputs < columns and _has_scales_of(weight, inputs):
            return f"is ternary with one scale for {inputs} inputs, which is not supported yet"
    return "is not ternary"


def _has_scales_of(weight: Floats, inputs: int) -> bool:
    """Whether each row has one magnitude within each group of `inputs` inputs."""
    parts = (weight[:, at : at + inputs] for at in range(0, weight.shape[1], inputs))
    return all(exact_product(part) is not None for part in parts)
