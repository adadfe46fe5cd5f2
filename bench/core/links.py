"""What bench.links stores of links between ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core.envelope import load_json
from bench.core.errors import ResultsError
from ternops.cost.hardware import Hardware
from ternops.cost.link import Link, doublings
from ternops.cost.measured_link import ELEMENTS
from ternops.cost.profile import parse
from ternops.cost.ranks import RanksPrediction

LINKS_FILE, LINKS_FORMAT = "links.json", 1
SHARED_MEMORY = "shared memory"


@dataclass(frozen=True)
class Curve:
    """A layout over a link. found: of rising numbers of ranks, those that have memory for it."""

    size: str
    link: Link
    sequences: int
    found: tuple[RanksPrediction, ...]

    @property
    def best(self) -> RanksPrediction:
        """The fastest."""
        return max(self.found, key=lambda each: each.tokens_per_second)


@dataclass(frozen=True)
class MeasuredLink:
    """A link of some ranks: what was asked for, None of shared memory, and what was seen, in
    seconds and bytes/s. gathers: of a vector of each of ELEMENTS."""

    name: str
    asked: Mapping[str, Any] | None
    ranks: int
    latency: float
    bandwidth: float
    barrier: float
    gathers: tuple[float, ...]

    @property
    def link(self) -> Link:
        """By latency and bandwidth alone."""
        return Link(self.name, self.latency, self.bandwidth, self.asked is None)

    @property
    def predicted(self) -> list[float]:
        """Seconds of gathering each vector, by these."""
        return [self.link.allgather_s(4 * each, self.ranks) for each in ELEMENTS]

    @property
    def predicted_barrier(self) -> float:
        """By its algorithm, which tells all in doublings."""
        return doublings(self.ranks) * self.latency

    def error(self, what: str) -> float | None:
        """Of a figure, over what was asked for; None where nothing was."""
        return None if self.asked is None else float(getattr(self, what) / self.asked[what] - 1)


def load_links(folder: Path) -> tuple[dict[str, Any], Hardware, list[MeasuredLink]]:
    """The file of a folder, the machine's profile, and its links; ResultsError for none."""
    path = folder / LINKS_FILE
    found = load_json(path, "bench.links", LINKS_FORMAT)
    names = MeasuredLink.__dataclass_fields__
    try:
        links = [
            MeasuredLink(**{name: each[name] for name in names} | {"gathers": (*each["gathers"],)})
            for each in found["links"]
        ]
        if not links or any(len(each.gathers) != len(ELEMENTS) for each in links):
            raise ValueError("links: expected some, with gathered vectors of every size")
        return found, parse(found["profile"], str(path)), links
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{path}: {error}, expected what bench.links writes") from None
