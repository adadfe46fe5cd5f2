"""How many processes share out each layer, and how many stages of a pipeline there are: as told."""

from __future__ import annotations

import re

_WORD = re.compile(r"(tp|pp)=([1-9][0-9]{0,5})")


def parse_layout(layout: str, ranks: int) -> int:
    """The stages of "pp=2,tp=2"; ValueError for what is no such layout, or not one of so many
    processes."""
    found: dict[str, int] = {}
    for word in layout.split(","):
        match = _WORD.fullmatch(word.strip())
        if match is None or match[1] in found:
            raise ValueError(f"layout={layout!r}: expected numbers as pp=2,tp=2")
        found[match[1]] = int(match[2])
    stages, rest = divmod(ranks, found["tp"]) if "pp" not in found else (found["pp"], 0)
    width, other = divmod(ranks, stages) if stages else (0, 1)
    if rest or other or found.get("tp", width) != width:
        raise ValueError(
            f"layout={layout!r}: of {ranks} processes, expected pp times tp to be as many"
        )
    return stages
