"""The packages that the layers are for, where they are installed."""

from __future__ import annotations

import copy

import pytest

from tests.peers.bitnet_folders import KINDS
from tests.peers.conftest import torch, transformers

__all__ = ["torch", "transformers"]


@pytest.fixture
def passes(monkeypatch):
    """How many tokens each pass of the decoder had."""
    from ternops.torch import decoder_forward

    found, run = [], decoder_forward.Decoder.run

    def noted(self, x, pages):
        found.append(len(x))
        return run(self, x, pages)

    monkeypatch.setattr(decoder_forward.Decoder, "run", noted)
    return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory, transformers):
    """A model as it is, and accelerated."""
    from tests.torch_layers.pairs import loaded

    return loaded(tmp_path_factory.mktemp("model"), transformers, *KINDS[0])


@pytest.fixture
def both(pair):
    """Copies of the two."""
    return copy.deepcopy(pair)
