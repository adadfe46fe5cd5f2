"""What the cases of bench.kernels are, and what follows from their times.

Each case says in its metadata what was timed, so that a suite read back tells all that a run knew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.core.measure import Case, speedup
from bench.core.pyperf_files import PREFIX, fields_of, load_suite, metadata_of
from bench.core.results import having, plural

#: The engine that is not a peer.
OURS = "ternops"
#: How its kernels are run alone.
NO_PYTHON = "without Python"
#: The parts of a product with many tokens, in the order in which it goes through them.
PREPARING, UNPACKING, PRODUCTS = GEMM_PARTS = "preparing", "unpacking", "products"
#: Where a peer's product has its version, and what a reader must know to judge its figures.
VERSION, REMARK = "ternops_version", "ternops_remark"


@dataclass(frozen=True)
class Product:
    """One product x @ W.T that was timed.

    group: those that took turns. encoding and tier: of our own, the encoding with the columns that
    share a scale, as "two_bit/128", if they do; input: dtype of the tokens;
    bytes: of the weights; level: where these are, and peak: the instruction that multiplies, if
    there is one whose rate is known. how: empty, or what else is special.
    """

    section: str
    group: str
    engine: str
    tokens: int
    rows: int
    columns: int
    threads: int
    bytes: int
    tier: str
    encoding: str = ""
    input: str = "float32"
    level: str = ""
    peak: str = ""
    how: str = ""

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.tokens * self.rows * self.columns

    @property
    def name(self) -> str:
        words = (
            self.group, self.who, self.how, plural(self.tokens, "token"), self.input,
            plural(self.threads, "thread"),
        )  # fmt: skip
        return ", ".join(word for word in words if word)

    @property
    def who(self) -> str:
        """The encoding of ours, or the engine."""
        return self.encoding if self.engine == OURS else self.engine

    @property
    def label(self) -> str:
        """The shape as [tokens, columns] x [columns, rows]."""
        return f"[{self.tokens}, {self.columns}] x [{self.columns}, {self.rows}]"


@dataclass(frozen=True)
class Limit:
    """One way to find what the machine can do.

    what: a level of memory, an instruction, or "barrier"; amount: bytes or multiply-accumulates.
    """

    section: str
    group: str
    what: str
    how: str
    threads: int
    amount: int
    tier: str

    @property
    def name(self) -> str:
        return f"{self.group}, limit {self.what}, {self.how}, {plural(self.threads, 'thread')}"


def describe(case: Case, what: Product | Limit) -> Case:
    """The case with a name and metadata that tell what it is."""
    case.name = what.name
    case.metadata = {**metadata_of(what), PREFIX + "kind": type(what).__name__}
    return case


def load_cases(path: Path) -> list[Case]:
    """The cases of a suite; ResultsError for another file, OSError if it cannot be read."""
    cases = []
    for each in load_suite(path):
        metadata = dict(each.get_metadata())
        name, loops = metadata.pop("name", ""), metadata.pop("loops", 1)
        cases.append(Case(name, lambda: None, loops, metadata, list(each.get_values())))
    return cases


def _amount(product: Product, what: str) -> int:
    """What a limit of this name counts of a product: bytes, or multiply-accumulates."""
    return product.bytes if what == product.level else product.macs


class Timings:
    """Cases by what they are. Times are medians, rates a second."""

    def __init__(self, cases: Iterable[Case]) -> None:
        self.products: dict[Product, Case] = {}
        self.limits: dict[Limit, Case] = {}
        for case in cases:
            match case.metadata.get(PREFIX + "kind"):
                case "Product":
                    self.products[Product(**fields_of(Product, case.metadata, case.name))] = case
                case "Limit":
                    self.limits[Limit(**fields_of(Limit, case.metadata, case.name))] = case

    def find(self, **wanted: object) -> list[Product]:
        return having(self.products, **wanted)

    def rate(self, product: Product) -> float:
        """Multiply-accumulates a second."""
        return product.macs / self.products[product].median

    def fastest(self, **wanted: object) -> Limit | None:
        """Of the limits with these values of their fields."""
        return max(having(self.limits, **wanted), key=self.limit_rate, default=None)

    def limit_rate(self, limit: Limit) -> float:
        """Bytes or multiply-accumulates a second."""
        return limit.amount / self.limits[limit].median

    def without_slower_limits(self) -> list[Case]:
        """The cases, of the ways to find the same limit the fastest only."""
        fastest = {
            self.fastest(group=g, threads=n, what=w, tier=t)
            for g, n, w, t in {(x.group, x.threads, x.what, x.tier) for x in self.limits}
        }
        limits = [case for limit, case in self.limits.items() if limit in fastest]
        return [*self.products.values(), *limits]

    def roofs(self, product: Product) -> dict[str, float]:
        """limit -> what it allows of a product that it was measured beside, as `rate`."""
        return {
            what: self.limit_rate(limit) * product.macs / _amount(product, what)
            for what, limit in self._limits(product).items()
        }

    def shares(self, product: Product) -> dict[str, float]:
        """limit -> the share of it. The median over rounds: a machine that drifts drifts for a
        product and its limit alike."""
        times = self.products[product].values
        return {
            what: speedup(self.limits[limit].values, times).median
            * (_amount(product, what) / limit.amount)
            for what, limit in self._limits(product).items()
        }

    def share(self, product: Product) -> float | None:
        """Of the lowest roof; None if none is known."""
        return max(self.shares(product).values(), default=None)

    def _limits(self, product: Product) -> dict[str, Limit]:
        """The fastest of each of a product's limits, of those that it was measured beside."""
        same = {"group": product.group, "threads": product.threads, "tier": product.tier}
        found = {what: self.fastest(what=what, **same) for what in (product.level, product.peak)}
        return {what: limit for what, limit in found.items() if limit}

    def ratio(self, faster: Product, slower: Product) -> float:
        """How many times as many multiply-accumulates a second: the median of paired rounds."""
        times = (self.products[each].values for each in (slower, faster))
        return speedup(*times).median * faster.macs / slower.macs
