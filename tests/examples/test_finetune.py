"""examples/finetune.py for a few steps: what it saves runs, and lambda rises to 1."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ternops.decoder import Model
from tests.peers.conftest import torch, transformers

__all__ = ["torch", "transformers"]
pytestmark = pytest.mark.peers

TEXTS = ["def add(one, other):\n    return one + other\n" * 40, "import os\nprint(os.name)\n" * 60]


@pytest.fixture
def run(transformers, monkeypatch, tmp_path, capsys):
    """Its `main`, on a text of a few lines; gives what it has printed and its exit code."""
    import finetune
    import training

    def read_text(vocabulary, tokenizer=None):
        tokenizer = tokenizer or training.train_tokenizer(TEXTS, vocabulary)
        files = [np.array(each.ids, np.int32) for each in tokenizer.encode_batch(TEXTS)]
        return training.Text(tokenizer, files * 40, files, sum(map(len, TEXTS)), 1.0, 1.0)

    monkeypatch.setattr(training, "read_text", read_text)

    def main(*arguments):
        settings = ["--steps", "6", "--float-steps", "4", "--tokens", "1024", "--threads", "1"]
        monkeypatch.setattr("sys.argv", ["finetune.py", *settings, *arguments])
        code = finetune.main()
        return capsys.readouterr().out, code

    return main


def bits(out, name):
    return float(re.search(rf"^{name}: ([0-9.]+) bits per byte$", out, re.MULTILINE)[1])


def test_from_floats_to_a_model_that_runs(run, tmp_path, monkeypatch):
    """Once trained here, once from the folder that this has left, in groups."""
    import finetune

    seen = []
    forward = finetune.BitLinear.forward

    def watch(layer, x):
        seen.append(layer.lambda_)
        return forward(layer, x)

    monkeypatch.setattr(finetune.BitLinear, "forward", watch)
    out, code = run("--output", str(tmp_path / "one"))
    before, after = bits(out, "float"), bits(out, "fine-tuned")
    assert bits(out, "rounded at once") > 0
    assert code == int(after > 1.10 * before)
    assert bits(out, "the same in ternops") == pytest.approx(after, rel=0.02)
    rising = sorted(set(seen))
    assert rising[0] == 0
    assert rising[-1] == 1
    assert len(rising) == 4  # 0, 1/3, 2/3 and 1, at the third step of six
    assert seen[-1] == 1

    folder = str(tmp_path / "one" / "float")
    out, _ = run("--model", folder, "--output", str(tmp_path / "two"), "--group", "128")
    assert bits(out, "float") == before
    model = Model.from_pretrained(tmp_path / "two", threads=1)
    assert model.weights.layers[0].linear["down"].group == 128
    assert bits(out, "the same in ternops") == pytest.approx(bits(out, "fine-tuned"), rel=0.02)


def test_at_once(run, tmp_path, monkeypatch):
    """Lambda is 1 from the first step."""
    import finetune

    seen, forward = set(), finetune.BitLinear.forward
    monkeypatch.setattr(
        finetune.BitLinear, "forward", lambda self, x: (seen.add(self.lambda_), forward(self, x))[1]
    )
    run("--output", str(tmp_path / "one"), "--at-once")
    assert seen == {1.0}
