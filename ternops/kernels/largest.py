"""The largest results of a product with one token, once they are rounded to bfloat16.

Layout: a product on int8 rows, and the bfloat16 rows that these were made of. Trick: `screen` rules
out rows, but none whose result may round to what the largest one rounds to. Bound: memory, 8 bits a
weight.
"""

import numpy as np

from ternops.kernels.operands import Operands
from ternops.kernels.screen import ROWS, find_all_peaks, rescore_all
from ternops.simd import TeamJob, call_rows_kernel, record_at, record_type
from ternops.team import barrier, share

#: The address of the OPERANDS record of the int8 product, whose `out` are the logits; and what
#: `screen.rescore_all` reads, for one output.
LARGEST = np.dtype(
    [(name, np.intp) for name in (
        "product", "outputs", "logits", "logits_stride", "peaks", "peak_count", "bounds", "exact",
        "exact_stride", "exact_is_bf16", "exact_top",
    )]
)  # fmt: skip
_Largest = record_type(LARGEST)
# All that rounds to a bfloat16 number lies in an interval of at most 2**-7 of it, and it is at most
# 1 / (1 - 2**-8) of each of them.
_NEAR = np.float32(1.01 * 2.0**-7)


@TeamJob
def largest_bf16(record, team, thread, threads):
    """The results that may be the largest as bfloat16, exactly, and -inf for others."""
    p = record_at(_Largest, record)
    product = record_at(Operands, p.product)
    first, last = share(1, 1, thread, threads)
    call_rows_kernel(product.prepare, p.product, first, last, thread)
    barrier(team, threads)
    first, last = share(product.rows, ROWS, thread, threads)
    call_rows_kernel(product.multiply, p.product, first, last, thread)
    find_all_peaks(p, product.placed, product.placed_stride, first, last)
    barrier(team, threads)
    rescore_all(p, product.placed, product.placed_stride, _NEAR, first, last)
