"""One product of each kernel whose instructions are counted, run by the emulator.

    python -m bench.arm.counted

prints one JSON object, what this is and where each kernel's code begins, and then multiplies.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import llvmlite
import numba
import numpy as np

import ternops
from ternops.isa import detect
from ternops.kernels.call import Call, Operand
from ternops.kernels.linear import linear
from ternops.kernels.operands import OPERANDS
from ternops.kernels.plan import KERNELS, UNPACKED, kind_of
from ternops.memory import aligned_zeros
from ternops.team import TEAM

ROWS, COLUMNS = 64, 2560
#: (encoding, tokens): a kernel each.
PRODUCTS = (
    ("two_bit", 1), ("base3", 1), ("tl1", 1), ("tl2", 1), ("fp16", 1),
    ("two_bit", 16), ("base3", 16),
)  # fmt: skip


def versions() -> dict[str, str]:
    """Of what makes the code."""
    return {
        "ternops": ternops.__version__, "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "LLVM": ".".join(map(str, llvmlite.binding.llvm_version_info)),
    }  # fmt: skip


def _kernel(encoding: str, matrix: ternops.TernaryMatrix | None, tokens: int) -> Any:
    """What the library multiplies with."""
    if matrix is None:
        return UNPACKED[encoding].multiply
    return KERNELS[encoding, kind_of(encoding, tokens, matrix.nbytes)][-1]


def _multiply(encoding: str, matrix: ternops.TernaryMatrix | None, tokens: int) -> None:
    if matrix is None:
        _multiply_unpacked(encoding, tokens)
    else:
        ternops.matmul(np.ones((tokens, COLUMNS), np.int8), matrix.T, threads=1)


def _multiply_unpacked(encoding: str, tokens: int) -> None:
    """As the decoder does with fp16 weights, which `ternops.matmul` does not take."""
    weights = aligned_zeros((ROWS, UNPACKED[encoding].stride(COLUMNS)), np.uint8)
    x, out = np.ones((tokens, COLUMNS), np.float32), np.empty((tokens, ROWS), np.float32)
    operand = Operand(encoding, weights.ctypes.data, weights.nbytes, ROWS, COLUMNS, scale_step=0)
    call = Call.of(operand, tokens, kind="one")
    memory = aligned_zeros(call.memory_bytes(1), np.uint8)
    record = np.zeros((), OPERANDS)
    call.write(record.data.cast("B"), x.ctypes.data, out.ctypes.data, memory.ctypes.data, 1)
    TEAM.run(linear, record, 1)


def main() -> int:
    """Print where the kernels are, and run them."""
    trits = np.random.default_rng(0).integers(-1, 2, (ROWS, COLUMNS), np.int8)
    cases = [
        (encoding, None if encoding in UNPACKED else ternops.pack(trits, 1.0, encoding), tokens)
        for encoding, tokens in PRODUCTS
    ]
    jobs = [_kernel(*case) for case in cases]
    about = {
        "tier": detect.TIER.name,
        "versions": versions(),
        "rows": ROWS, "columns": COLUMNS, "tokens": [tokens for _, _, tokens in cases],
        "kernels": [job.name for job in jobs], "addresses": [job.address for job in jobs],
    }  # fmt: skip
    print(json.dumps(about), flush=True)
    for case in cases:
        _multiply(*case)
    return 0


if __name__ == "__main__":
    sys.exit(main())
