"""What an instruction-set tier is: a record, made from another by saying what differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

Value = TypeVar("Value")


#: Families of CPUs whose tiles differ within a tier: all that are not named, AMD's Zen, and Zen 4,
#: which computes 512 bits in two halves.
FAMILIES = ("", "zen", "zen4")


def family_of(cpu: str) -> str:
    """The family of a CPU by LLVM's name for it."""
    if cpu == "znver4":
        return "zen4"
    return "zen" if cpu.startswith("znver") else ""


def is_zen(family: str) -> bool:
    return family.startswith("zen")


class BatchTile(NamedTuple):
    """Several tokens with weights that are decoded where they are used: rows x tokens at a time.

    most: more tokens go to the GEMM.
    """

    rows: int
    tokens: int
    most: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.tokens}"


class GemmTile(NamedTuple):
    """rows x tokens of the product that the GEMM keeps in registers.

    panel_rows: unpacked at a time, of at most `depth` columns. block_bytes: of prepared tokens that
    a panel is used for before the next one; what the second-level cache holds beside a panel.
    """

    rows: int
    tokens: int
    panel_rows: int = 64
    depth: int = 4160
    block_bytes: int = 1 << 60

    def __str__(self) -> str:
        """What is compiled: not the block of tokens, which is a number that kernels are told."""
        return f"{self.rows}x{self.tokens}p{self.panel_rows}d{self.depth}"


class ByteTable(NamedTuple):
    """A look-up of bytes in a table of some registers, of at least 81 entries.

    bytes: of the table. look_up: x86's (low half, index, high half), or ARM's (registers, the first
    one's index, index, 64 in every byte) where comparisons give -1 a lane (is_arm).
    """

    bytes: int
    look_up: Any
    is_arm: bool = False


@dataclass(frozen=True)
class Tier:
    """One instruction-set tier. Functions are kernel code.

    machines: LLVM architecture names, none for every one; features: the LLVM features that the CPU
    must have; parent: the tier that it was made from.
    vector_bytes: the width of the integer vectors; registers: how many the CPU has.
    dot(partial, unsigned u8, signed i8): partial + 4 products a lane of int32; with `close`, + 2 a
    lane of int16, and close(total, partial) adds them up.
    dot_lanes: `dot` with the products of a lane's own four bytes in it, where `dot` has others.
    dot_signed(i32 acc, i8, i8): the same of signed bytes; None where `dot` has to do it, biased.
    dot_signed_lanes: `dot_signed` with the products of a lane's own four bytes in it, where
    `dot_signed` has others.
    narrow_dot: `dot` on vectors of 32 bytes, where the tier's own are longer.
    dot_pairs(acc, codes, signed): a dot of two rows and two tokens a vector, if there is one.
    byte_table: a look-up of bytes in a table of at least 81 entries, if there is one.
    shuffle_words(table, index), shuffle_bytes(table, index): look-ups of 32 words by their low five
    bits, and of 16 bytes in each half, if there are such and tables of sums are made for them.
    look_up_16(table, index): of 16 bytes, which the table has in each 16 of its own, if there is
    such.
    has_tiles: whether there are AMX's tile registers.
    batch, gemm: tiles for several and for many tokens. auto: what "auto" means for weights that the
    last-level cache holds, and for more of them.
    """

    name: str
    machines: tuple[str, ...]
    features: tuple[str, ...]
    vector_bytes: int
    registers: int
    dot: Any
    batch: BatchTile
    gemm: GemmTile
    auto: tuple[str, str]
    parent: Tier | None = None
    close: Any = None
    dot_lanes: Any = None
    dot_signed: Any = None
    dot_signed_lanes: Any = None
    narrow_dot: Any = None
    dot_pairs: Any = None
    byte_table: ByteTable | None = None
    shuffle_words: Any = None
    shuffle_bytes: Any = None
    look_up_16: Any = None
    has_tiles: bool = False

    def extended(self, name: str, *features: str, **changes: Any) -> Tier:
        """A tier whose CPUs have these features besides, and what differs with them."""
        return replace(
            self, name=name, parent=self, features=(*self.features, *features), **changes
        )

    def lineage(self) -> Iterator[Tier]:
        """Itself, the tier that it was made from, and so on."""
        tier: Tier | None = self
        while tier is not None:
            yield tier
            tier = tier.parent

    def pick(self, by_tier: Mapping[str, Value], family: str = "") -> Value:
        """The entry of a table for this tier, or for the nearest that it was made from.

        One for the family of CPUs, "tier@family", is preferred to the tier's. What no table has of
        Zen 4 is Zen's.
        """
        ends = (f"@{family}", "@zen" if is_zen(family) else "", "")
        keys = (tier.name + end for tier in self.lineage() for end in ends)
        return next(by_tier[key] for key in keys if key in by_tier)
