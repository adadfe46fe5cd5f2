"""The decoder against Hugging Face transformers on the same checkpoint."""

from pathlib import Path

import numpy as np
import pytest

from ternops.decoder import Model
from ternops.decoder.checkpoint import TINY
from ternops.decoder.reference import perplexity
from ternops.decoder.text import load_tokenizer

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def both_logits():
    """Logits of ternops and of transformers, in float32, for one text."""
    torch = pytest.importorskip("torch", reason="torch is not installed (make test-peers)")
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed (make test-peers)"
    )
    text = Path(__file__).read_text("utf-8")
    tokens = load_tokenizer(TINY).encode(text).ids[:512]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(torch.tensor([tokens])).logits[0].numpy()
    return tokens, Model.from_pretrained().logits(tokens), expected


def test_same_architecture(both_logits):
    """The likeliest token agrees nearly everywhere.

    Not everywhere: torch adds floats in another order, and an activation that lies on the border
    between two int8 values then rounds the other way, a difference of 1/127 of the largest one.
    """
    _, ours, theirs = both_logits
    assert np.mean(ours.argmax(1) == theirs.argmax(1)) > 0.97
    assert np.abs(ours - theirs).mean() < 0.05


def test_same_perplexity(both_logits):
    """The text is as likely to both, within 0.5%."""
    tokens, ours, theirs = both_logits
    assert perplexity(ours, tokens) == pytest.approx(perplexity(theirs, tokens), rel=5e-3)
