"""What several tests assert in the same way."""

from __future__ import annotations

import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ternops.encodings import common
from ternops.encodings.encoding import Encoding


def fails(error: type[Exception], words: str, call: Callable[[], object]) -> None:
    """`call` raises `error` in one line that holds all the words, and warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error) as caught:
            call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words.split():
        assert word in message, message


def packed_in_pieces(layout: Encoding, values: npt.NDArray[np.int8]) -> npt.NDArray[Any]:
    """What `layout` packs values to, and unpacks again, with little memory beside the result."""
    tracemalloc.start()
    packed = layout.pack(values)
    packing = tracemalloc.get_traced_memory()[1] - packed.nbytes
    tracemalloc.reset_peak()
    unpacked = layout.unpack(packed, *values.shape)
    unpacking = tracemalloc.get_traced_memory()[1] - packed.nbytes - unpacked.nbytes
    tracemalloc.stop()
    assert (unpacked == values).all()
    assert max(packing, unpacking) < 8 * common.PIECE < values.nbytes
    return packed
