"""The energy of arithmetic alone, as the BitNet papers count it.

Source of the operations' energies: the tables of "BitNet: Scaling 1-bit Transformers for Large
Language Models" (arXiv 2310.11453), after M. Horowitz, "Computing's energy problem" (ISSCC 2014)
and, for 7 nm, Zhang et al. None of it counts memory, which on a CPU is most of the energy.
"""

from __future__ import annotations

from typing import NamedTuple


class Operation(NamedTuple):
    """Picojoules of one addition and one multiplication."""

    add: float
    multiply: float


#: Process -> type -> energy.
OPERATIONS = {
    "45 nm": {
        "int8": Operation(0.03, 0.2),
        "int32": Operation(0.1, 3.1),
        "fp16": Operation(0.4, 1.1),
        "float32": Operation(0.9, 3.7),
    },
    "7 nm": {
        "int8": Operation(0.007, 0.07),
        "int32": Operation(0.03, 1.48),
        "fp16": Operation(0.16, 0.34),
        "float32": Operation(0.38, 1.31),
    },
}
#: Tokens that the energy column of the 2B4T report is for.
REPORT_TOKENS = 512


def mac_joules(kind: str, node: str) -> float:
    """One multiply-accumulate: of ternary weights an int8 addition, of float16 both operations."""
    table = OPERATIONS[node]
    if kind == "fp16":
        return sum(table["fp16"]) * 1e-12
    return table["int8"].add * 1e-12


def ternary_saving(node: str = "7 nm") -> float:
    """How many times less energy the products of ternary weights take: 71.4 at 7 nm."""
    return mac_joules("fp16", node) / mac_joules("ternary", node)


class Decoder(NamedTuple):
    """What the report's column depends on."""

    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int

    @property
    def linear_weights(self) -> int:
        """Of all layers: four projections and three matrices of the FFN."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        projections = self.hidden * (2 * queries + 2 * keys)
        return self.layers * (projections + 3 * self.hidden * self.ffn)


def report_joules(model: Decoder, kind: str) -> float:
    """The energy column of the "BitNet b1.58 2B4T Technical Report" (arXiv 2504.12285), joules.

    Reconstructed: 512 tokens through the linear layers, and attention of each to all 512 in
    float16; the output head and all memory are left out.
    """
    products = REPORT_TOKENS * model.linear_weights * mac_joules(kind, "7 nm")
    pairs = model.layers * model.heads * model.head_dim * REPORT_TOKENS**2
    return products + 2 * pairs * mac_joules("fp16", "7 nm")
