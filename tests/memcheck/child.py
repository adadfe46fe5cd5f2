"""What runs under valgrind: products and a model whose arrays have not a byte too many.

python -m tests.memcheck.child PART

The parts are those of `tests.programs.guard_pages`, which compare with NumPy, of fewer shapes, and
"generation"; "too-short" and "undefined" do what must be found. Prints how many kernels were used
as JSON. Fails if one had to be compiled: a compiler takes hours here, so that a process without
valgrind must have been first.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
import weakref
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from ternops.decoder import Model
from ternops.memory import CACHE_LINE
from tests.helpers import cases, internals
from tests.programs import guard_pages

Array = npt.NDArray[Any]

#: Odd ones, and on both sides of blocks, panels and cache lines; a guard page takes whole lines
#: alone.
SHAPES = [(1, 1), (3, 63), (5, 257), (17, 130), (64, 321), (70, 641)]
GROUPED_SHAPES = [(17, 256), (31, 96)]
LENGTHS = (1, 5, 63, 130, 321)
WEIGHTS = ("ternary", "two_bit", "base3", "tl1", "tl2", "fp16")

libc = ctypes.CDLL(None)
libc.aligned_alloc.argtypes = (ctypes.c_size_t, ctypes.c_size_t)
libc.aligned_alloc.restype = ctypes.c_void_p
libc.free.argtypes = (ctypes.c_void_p,)


def exact_empty(shape: int | tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """As `ternops.memory.aligned_empty`: a block of its own, of which valgrind knows both ends."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    address = libc.aligned_alloc(CACHE_LINE, size)
    if not address:
        raise MemoryError(f"{size} bytes")
    block: Any = (ctypes.c_char * size).from_address(address)
    array: Array = np.frombuffer(block, np.uint8)
    weakref.finalize(array, libc.free, address)
    return array.view(kind).reshape(shape)


def exact_copy(array: Array) -> Array:
    """A copy in a block of its own."""
    copy = exact_empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def generation() -> None:
    """The tiny model, its weights in each encoding: a prompt, and tokens by one, two threads."""
    for weights in WEIGHTS:
        tokens = []
        for threads in (1, 2):
            model = Model.from_pretrained(weights=weights, threads=threads)
            tokens.append(list(model.generate(list(range(1, 20)), 3)))
            assert np.isfinite(model.logits([0, 5, 9])).all()
        assert tokens[0] == tokens[1], weights


def too_short() -> None:
    """Tokens of 60 floats for rows of 64."""
    weights = exact_copy(cases.floats(4, 64, dtype=np.float16))
    guard_pages.half_product(weights, exact_copy(cases.floats(1, 60)), exact_empty((1, 4), "f4"))


def undefined() -> None:
    """A product of what nothing has written, and a look at it."""
    weights, out = exact_copy(cases.floats(4, 64, dtype=np.float16)), exact_empty((1, 4), "f4")
    guard_pages.half_product(weights, exact_empty((1, 64), "f4"), out)
    assert cases.same_bits(out, out.copy())


#: What of the tests is compared with NumPy, and may not be found to do anything wrong.
PARTS = {
    "int8": guard_pages.matrices,
    "floats": guard_pages.floats,
    "grouped": guard_pages.PARTS["all-groups"],
    "along-columns": guard_pages.along_columns,
    "packing": guard_pages.packing,
    "generation": generation,
}
CONTROLS = {"too-short": too_short, "undefined": undefined}


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """While this lasts, arrays of the package and of guard pages' tests are such blocks."""
    with (
        internals.eager_threads(),
        internals.exact_scratch(exact_empty),
        internals.exact_memory(exact_empty),
        mock.patch.multiple(
            guard_pages,
            ending=exact_copy,
            SHAPES=SHAPES,
            GROUPED_SHAPES=GROUPED_SHAPES,
            LENGTHS=LENGTHS,
        ),  # fmt: skip
    ):
        yield


if __name__ == "__main__":
    used, compiled = internals.count_lookups(), internals.count_compilations()
    with exact():
        {**PARTS, **CONTROLS}[sys.argv[1]]()
    if "--compile" not in sys.argv[2:]:
        assert not compiled, f"compiled under valgrind: {compiled}"
    print(json.dumps({"kernels": sorted(set(used))}))
