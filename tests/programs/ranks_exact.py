"""One of several processes that decode together; the first one compares with decoding alone.

    mpiexec -n N python -m tests.programs.ranks_exact CASE...

A case is a JSON object: what `tests.helpers.rank_cases.weights_of` takes, and of a model `head`,
`cache`, `sparse`, `threads` and the `stages` of the
pipeline. Prints "exact" and the case where all logits are the same bits.
"""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

import numpy as np

from ternops.decoder import Model, Session
from ternops.decoder.batch import Batch
from ternops.decoder.parts import part_of
from ternops.decoder.weights import Weights
from ternops.ranks.follow import Follower
from ternops.ranks.group import END, Group
from ternops.ranks.split import split_of, stage_bounds
from ternops.ranks.world import mpi
from tests.helpers.decoding import run_batch
from tests.helpers.rank_cases import weights_of

NOTHING = np.empty(0, np.int64)


def models(group: Group, weights: Weights, case: dict[str, Any]) -> tuple[Model, Model]:
    """This process's part of a model, and the whole of it."""
    usual = {"threads": 1, "head": "fp16", "cache": "fp16", "sparse": "auto"}
    chosen: dict[str, Any] = {name: case.get(name, value) for name, value in usual.items()}
    # The first stage has fewer layers, since it has the head.
    stages = case.get("stages", 1)
    group.arrange(stage_bounds(weights.config, stages, 1.0, 1.5) if stages > 1 else ())
    part = part_of(weights, split_of(weights.config, *group.part))
    return Model(part, **chosen, group=group), Model(weights, **chosen)


def compile_for(alone: Model) -> None:
    """Have the kernels that `compare` needs, so that no other process compiles them as well."""
    session = Session(alone)
    for count in (1, 2, 17):
        session.extend(list(range(count)), count)


def compare(together: Model, alone: Model) -> None:
    """Single tokens, passes of several, and a batch whose sequences begin alike."""
    vocabulary, context = alone.config.vocabulary, alone.config.context
    tokens = np.random.default_rng(3).integers(0, vocabulary, context - 4).tolist()
    for exact_top in (0, 1):
        sessions = Session(together), Session(alone)
        for token in tokens[:5]:
            check(*(each.step(token, exact_top=exact_top) for each in sessions))
        for at, count in ((5, 2), (7, 17), (24, len(tokens) - 24)):
            part = tokens[at : at + count]
            check(*(each.extend(part, count, exact_top) for each in sessions))
        for each in sessions:
            each.position = 3
        check(*(each.extend(tokens[3:9], 1, exact_top) for each in sessions))
    prompts = [tokens[:9], tokens[:6], tokens[3:4], tokens[: len(tokens) - 6], tokens[:9]]
    found = []
    for model in (together, alone):
        batch = Batch(model, 3)
        for prompt in prompts:
            batch.add(prompt, 5, stop_at_eos=False)
        found.append(run_batch(batch))
    assert found[0] == found[1], found
    dropped = Batch(together, 3)
    for prompt in prompts[:3]:
        dropped.add(prompt, 9)
    for _ in range(3):
        dropped.step()
    check(Session(together).step(7), Session(alone).step(7))  # while passes are under way
    dropped.cancel(1)
    dropped.step()
    del dropped
    drafted = list(together.generate(tokens[:3] * 3, 9, prompt_lookup=4, stop_at_eos=False))
    assert drafted == list(alone.generate(tokens[:3] * 3, 9, stop_at_eos=False))


def check(found: Any, expected: Any) -> None:
    """The same bits."""
    left, right = (np.ascontiguousarray(each).view(np.uint32) for each in (found, expected))
    assert left.shape == right.shape
    assert (left == right).all(), f"{(left != right).sum()} of {left.size} logits differ"


def main() -> None:
    group = Group()
    for text in sys.argv[1:]:
        case = json.loads(text)
        together, alone = models(group, weights_of(**case), case)
        if group.leads:
            compile_for(alone)
        group.tell_all("", 1)
        if group.leads:
            compare(together, alone)
            group.send(END, NOTHING)
            print("exact", text, flush=True)
        else:
            follower = Follower(group)
            follower.use(together)
            follower.run()


if __name__ == "__main__":
    try:
        main()
    except Exception:
        traceback.print_exc()
        mpi().COMM_WORLD.Abort(1)
