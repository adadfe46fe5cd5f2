"""What one token need not read of a model with ReLU^2: whether and with what it is left out."""

from __future__ import annotations

import numpy as np

from ternops.decoder.weights import HalfMatrix, Weights, operand_of
from ternops.encodings import ENCODINGS
from ternops.encodings.blocks import Blocks
from ternops.encodings.common import SLACK
from ternops.kernels import lists, sparse
from ternops.kernels.transpose import transpose
from ternops.matrix import TernaryMatrix
from ternops.memory import Arena
from ternops.packed import Packed
from ternops.spelling import expected_one

#: auto: where a token's own zeros make it pay. always: whatever the zeros; never: all is read.
SPARSE = ("auto", "always", "never")
# Of 1024 rows of `up`, or columns of `down`, so many at most are read one by one: more take longer
# than all of them do one behind the other. On Sapphire Rapids, from DRAM, 42% of rows of 512 bytes
# take 77% of the time of all, and 22% of columns 55%: what lies apart is read no faster than a
# core's first-level cache can ask for lines.
_MOST_ROWS, _MOST_COLUMNS = 512, 384
# Bytes that a thread reads while it makes a list of rows, which is therefore the least to be saved.
_LEAST_SAVED = 4096


class Sparsity:
    """`kind` is one of SPARSE; raises ValueError for another word, or for "always" where rows and
    columns cannot be left out.

    columns: `down` of each layer by columns, packed a second time: 1.6 or 2 bits a weight more.
    """

    def __init__(self, weights: Weights, encoding: str, kind: str, threads: int) -> None:
        if kind not in SPARSE:
            raise ValueError(expected_one("sparse", kind, SPARSE))
        reason = _obstacle(weights, encoding)
        if kind == "always" and reason:
            raise ValueError(f"sparse={kind!r}: {reason}")
        self.kind = "never" if reason else kind
        self.columns: list[TernaryMatrix] = []
        self._weights = weights
        #: Bytes of the scratch of a pass with one token, where anything is left out.
        self.areas: dict[str, int] = {}
        if self.kind == "never":
            return
        c, layout = weights.config, ENCODINGS[encoding]
        assert isinstance(layout, Blocks)
        self.columns = _by_columns(weights, threads)
        entries = c.ffn + lists.PADDING
        self.areas = {
            "listed": 4 * entries, "codes": entries, "sums": sparse.sums_bytes(layout, c.hidden)
        }  # fmt: skip

    @property
    def nbytes(self) -> int:
        """Bytes that are kept besides the weights."""
        return sum(each.nbytes for each in self.columns)

    def saved(self, rows: float, columns: float) -> int:
        """Bytes that a token need not read of which these shares of rows and columns are read."""
        layers = self._weights.layers
        up, down = (sum(each.linear[name].nbytes for each in layers) for name in ("up", "down"))
        # All columns are read from `down` itself.
        listed = down - columns * self.nbytes if columns < 1 else 0
        return int((1 - rows) * up + listed)

    @property
    def fields(self) -> dict[str, int]:
        """Of the record of a pass with one token."""
        if not self.columns:
            return {}
        name = self.columns[0].encoding
        kernels = sparse.sparse_kernels(name)
        rows, columns, least = _MOST_ROWS, _MOST_COLUMNS, _LEAST_SAVED
        if self.kind == "always":
            rows, columns, least = 1024, 1024, 0
        return {
            "most_rows": rows, "most_columns": columns, "least_saved": least,
            "listed_multiply": kernels.listed.address,
            "columns_multiply": kernels.columns.address,
            "columns_close": kernels.close.address,
        }  # fmt: skip


def _obstacle(weights: Weights, encoding: str) -> str | None:
    """Why nothing can be left out, if so."""
    c = weights.config
    if c.activation != "relu2":
        return f"the activation is {c.activation}, expected relu2"
    if not isinstance(ENCODINGS.get(encoding), Blocks):
        return f"the weights are {encoding}, expected an encoding of blocks"
    if c.ffn > sparse.MAX_COLUMNS:
        return f"{c.ffn} columns of down, expected at most {sparse.MAX_COLUMNS}"
    if any(operand_of(layer.linear["up"]).scale_step for layer in weights.layers):
        return "a scale for each row of up, expected one for all"
    return None


def _by_columns(weights: Weights, threads: int) -> list[TernaryMatrix]:
    """`down` of every layer, transposed; what layers share is made once."""
    arena = Arena()
    found: dict[int, TernaryMatrix] = {}
    for layer in weights.layers:
        if id(layer) not in found:
            found[id(layer)] = transposed(layer.linear["down"], threads, arena)
    return [found[id(layer)] for layer in weights.layers]


def transposed(matrix: TernaryMatrix | HalfMatrix, threads: int, arena: Arena) -> TernaryMatrix:
    """A matrix of a block encoding, packed anew by columns, without its scale."""
    source = operand_of(matrix)
    encoding = ENCODINGS[source.encoding]
    assert isinstance(encoding, Blocks)
    size = encoding.nbytes(source.columns, source.rows) + SLACK
    packed = arena.empty(size, np.uint8)
    packed[-SLACK:] = 0
    transpose(source, packed, threads)
    return TernaryMatrix(Packed(packed, source.columns, source.rows, None, source.encoding))
