"""What each of several processes holds of a packed model that they share out.

    mpiexec -n N python -m tests.programs.ranks_memory FILE LAYOUT

Prints a line of JSON: the bytes of the file's weights that a token reads, and of each process
those that it has, and by how much its memory that is of no file has grown.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ternops.decoder import Session
from ternops.decoder.loaded import LoadedModel
from ternops.decoder.model import Model
from ternops.ranks import launch
from ternops.ranks.follow import Follower
from ternops.ranks.group import Group


def part_of(model: LoadedModel) -> int:
    """Bytes of the file's weights that this process has, where it has no copy of them."""
    w = model.weights
    return w.linear_bytes + w.head.nbytes


def own() -> int:
    """Bytes of memory that is of no file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


def tell(group: Group, found: tuple[int, int], weights: int) -> None:
    """All processes call this; the first one prints."""
    every = [json.loads(each) for each in group.tell_all(json.dumps(found), 200)]
    if group.leads:
        parts, grown = zip(*every, strict=True)
        stages = max(1, len(group.part[-1]) - 1)
        told = {"weights": weights, "stages": stages, "parts": parts, "own": grown}
        print(json.dumps(told), flush=True)


def lead(path: str, layout: str) -> int:
    group, before = launch.the_group(), own()
    model = launch.load(path, head="fp16", threads=1, layout=layout)
    session = Session(model)
    for token in range(40):
        session.step(token)
    group.end()
    found = part_of(model), own() - before
    tell(group, found, part_of(Model.from_pretrained(path, head="fp16", threads=1)))
    return 0


if __name__ == "__main__":
    path, layout = sys.argv[1], sys.argv[2]
    group = launch.the_group()
    if group.leads:
        lead(path, layout)
    else:
        before = own()
        follower = Follower(group, launch.follow_load)
        follower.run()
        assert follower.model is not None
        tell(group, (part_of(follower.model), own() - before), 0)
