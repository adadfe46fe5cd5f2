"""A process reads its part of a packed file, and no more."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from ternops.decoder import Config
from ternops.decoder.formats import convert
from ternops.decoder.formats.checkpoint import Checkpoint
from ternops.decoder.weights import random_half, random_ternary
from tests.helpers.rank_cases import mpiexec

pytestmark = pytest.mark.mpi
MB = 1 << 20
CONFIG = Config(
    hidden=1024, ffn=4096, layers=16, heads=16, kv_heads=4, head_dim=64, vocabulary=8000,
    context=256, architecture="llama",
)  # fmt: skip


class Random(Checkpoint):
    """Weights that are in no file yet."""

    config = CONFIG

    def matrix(self, layer, name, encoding):
        shape = self.config.linear_shapes(layer)[name]
        return random_ternary(*shape, encoding, np.random.default_rng(layer))

    def norm(self, layer, name):
        return np.ones(self.config.norm_sizes(layer)[name], np.float32)

    def final_norm(self):
        return np.ones(self.config.hidden, np.float32)

    def embedding(self):
        return random_half(self.config.vocabulary, self.config.hidden, np.random.default_rng(0))

    head = embedding

    def trits(self, layer, name):
        raise NotImplementedError

    def tokenizer(self):
        raise FileNotFoundError("none")

    def chat_template(self):
        return None

    def special_tokens(self):
        return {}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A file of 80 MB."""
    folder = tmp_path_factory.mktemp("packed")
    source = folder / "source"
    source.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "open_checkpoint", lambda *_, **__: Random())
        convert.convert(source, folder / "model.tern", "two_bit")
    return str(folder / "model.tern")


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads /proc/self/status")
@pytest.mark.parametrize(("ranks", "layout"), [(4, "tp=4"), (4, "tp=2,pp=2"), (2, "pp=2")])
def test_a_process_has_its_part_in_memory(packed, ranks, layout):
    """At most a twentieth more than that of the weights, in whole units of rows and whole layers,
    where they lie in the file; its own memory is that of its buffers. (How much of a mapped file is
    in memory the system decides, which maps more than what is read.)"""
    done = mpiexec(ranks, ["-m", "tests.programs.ranks_memory", packed, layout])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    part = found["weights"] / ranks
    # Half of a layer, or of what a process has of one.
    layer = CONFIG.linear_weights / CONFIG.layers / 4
    half = layer / 2 * found["stages"] / ranks if found["stages"] > 1 else 0
    assert max(found["parts"]) <= 1.05 * part + half
    assert min(found["parts"]) >= 0.95 * part - half
    assert max(found["own"]) <= 15 * MB
