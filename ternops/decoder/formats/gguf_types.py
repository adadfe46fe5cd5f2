"""The types of a GGUF file's tensors: how many weights a block has, and how many bytes.

The `gguf` package knows llama.cpp's. Those of programs made from it, and what is newer than the
package, are added here. Sources: microsoft/BitNet (I2_S), ikawrakow/ik_llama.cpp (IQ1_BN, IQ2_BN:
a scale before the blocks of each row), ggml-org/llama.cpp (Q1_0, Q2_0), PrismML-Eng/llama.cpp
(PQ2_0, PTQ1_0).
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Kind(NamedTuple):
    """A type. weights, size: of a block, the latter in bytes; prefix: bytes before the blocks of
    each row; tail: bytes after those of the tensor, whose blocks then run on over the ends of rows.
    """

    name: str
    weights: int
    size: int
    prefix: int = 0
    tail: int = 0


I2_S = 36
Q2_0 = 42
#: One number that two programs gave to two layouts: llama.cpp's has blocks of 64, that of an older
#: fork blocks of 128. Nothing but the sizes of tensors tells which.
Q2_0_LAYOUTS = (Kind("Q2_0", 64, 18), Kind("Q2_0", 128, 34))

_ADDED = {
    I2_S: Kind("I2_S", 128, 32, tail=32),
    41: Kind("Q1_0", 128, 18),
    134: Kind("IQ1_BN", 64, 13, prefix=2),
    135: Kind("IQ2_BN", 64, 16, prefix=4),
    142: Kind("PQ2_0", 128, 34),
    143: Kind("PTQ1_0", 128, 28),
}


def kind_of(number: int) -> Kind:
    """Of a type's number, but Q2_0; ValueError for an unknown one."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if number in _ADDED:
        return _ADDED[number]
    sizes = {kind.value: Kind(kind.name, *size) for kind, size in GGML_QUANT_SIZES.items()}
    if number not in sizes:
        names = {each.name for each in (*GGMLQuantizationType, *_ADDED.values(), *Q2_0_LAYOUTS)}
        raise ValueError(f"has the type {number}, expected one of {', '.join(sorted(names))}")
    return sizes[number]


def tensor_bytes(kind: Kind, shape: tuple[int, ...]) -> int:
    """How many bytes a tensor takes; Python's integers do not overflow. ValueError for rows that
    blocks do not fill."""
    count = math.prod(shape)
    columns = shape[-1] if shape else 1
    if kind.tail:
        if count % kind.weights:
            raise ValueError(
                f"has {count} weights, expected a multiple of {kind.weights} ({kind.name})"
            )
        return count // kind.weights * kind.size + kind.tail
    if columns % kind.weights:
        raise ValueError(f"has rows of {columns}, expected a multiple of {kind.weights}")
    return count // kind.weights * kind.size + count // columns * kind.prefix


def layout_of(tensors: list[tuple[tuple[int, ...], int, int]]) -> Kind:
    """Which of Q2_0_LAYOUTS a file has; ValueError where its sizes fit none, or more than one.

    tensors: the shape of each tensor of the type, the bytes from its start to the next one's, or to
    the end of the file, and the alignment.
    """
    found = [kind for kind in Q2_0_LAYOUTS if all(_fits(kind, *each) for each in tensors)]
    if len(found) == 1:
        return found[0]
    sizes = " or ".join(f"blocks of {each.weights} in {each.size} bytes" for each in Q2_0_LAYOUTS)
    reason = "both fit the sizes of its tensors" if found else "neither fits (truncated?)"
    raise ValueError(f"type {Q2_0}, Q2_0, is {sizes}: {reason}")


def _fits(kind: Kind, shape: tuple[int, ...], room: int, alignment: int) -> bool:
    """Whether a tensor takes this room, all but for what the next one's alignment leaves over."""
    try:
        size = tensor_bytes(kind, shape)
    except ValueError:
        return False
    return size <= room <= -(-size // alignment) * alignment
