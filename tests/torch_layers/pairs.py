"""A small BitNet as it is and accelerated, and what is asked of the two."""

from __future__ import annotations

import copy
import io
import pickle

import torch

from ternops.torch import accelerate, decoder_forward
from tests.peers.bitnet_folders import KINDS, LARGEST, load_theirs, prompt_of, write

#: What this version of transformers calls a cache.
CACHE = decoder_forward.CACHE
STEPS = 24


def loaded(folder, transformers, layout, kind, seed):
    """A model of `write`, as it is and accelerated."""
    write(folder, layout, kind, seed, torch, transformers)
    found = [load_theirs(folder, torch, transformers) for _ in range(2)]
    for each in found:
        each.generation_config.eos_token_id = None
    return found[0], accelerate(found[1])


def ids(seed=KINDS[0][2], count=None):
    found = torch.tensor([prompt_of(seed)])
    return found if count is None else found.repeat(1, -(-count // found.shape[1]))[:, :count]


def generated(model, tokens, **settings):
    settings = {"do_sample": False, "max_new_tokens": STEPS, **settings}
    return model.generate(tokens, **settings)


#: Ways to `copied`.
COPIES = "deepcopy", "pickle", "torch.save"


def copied(model, how):
    if how == "deepcopy":
        return copy.deepcopy(model)
    if how == "pickle":
        return pickle.loads(pickle.dumps(model))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@torch.no_grad()
def logits(model, *arguments, **settings):
    return model(*arguments, **settings).logits


def assert_near(one, other):
    assert one.shape == other.shape
    assert (one - other).abs().max() < LARGEST * max(1, other.abs().max() / 10)
