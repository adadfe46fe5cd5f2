"""Penalties, biases and what is drawn from, as transformers and llama.cpp have them."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.decoder import open_checkpoint
from ternops.decoder.sampler import Sampler
from ternops.decoder.sampling import Sampling
from tests.helpers import internals
from tests.peers.random_models import made

pytestmark = pytest.mark.peers

VOCABULARY = 500
PROMPT = [5, 5, 9, 250, 9, 17]
GENERATED = [3, 250, 3, 3, 44]


def logits():
    return (3 * np.random.default_rng(1).standard_normal(VOCABULARY)).astype(np.float32)


def sampler(**settings):
    """One that has a prompt, and has chosen some tokens."""
    made = Sampler(Sampling(**settings), PROMPT)
    for token in GENERATED:
        internals.choose(made, token, logits())
    return made


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"top_k": 20}, {"top_p": 0.8}, {"min_p": 0.05}, {"repetition_penalty": 1.4},
        {"repetition_penalty": 0.7}, {"logit_bias": {1: 3.0, 9: -2.0, 250: 5.0}},
        {"top_k": 40, "top_p": 0.9, "min_p": 0.1}, {"top_k": 5, "min_p": 0.9},
        {"repetition_penalty": 1.4, "logit_bias": {3: 4.0, 5: -1.0, 8: 2.0}, "top_p": 0.95,
         "min_p": 0.02, "top_k": 100},
    ],
)  # fmt: skip
@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_the_probabilities_of_transformers(torch, transformers, temperature, settings):
    """In the order of its `generate`."""
    names = transformers.generation.logits_process

    def bias(values):
        return names.SequenceBiasLogitsProcessor([[[token], x] for token, x in values.items()])

    order = [
        ("logit_bias", bias),
        ("repetition_penalty", names.RepetitionPenaltyLogitsProcessor),
        ("temperature", names.TemperatureLogitsWarper),
        ("top_k", names.TopKLogitsWarper), ("top_p", names.TopPLogitsWarper),
        ("min_p", names.MinPLogitsWarper),
    ]  # fmt: skip
    settings = {**settings, "temperature": temperature}
    theirs = torch.from_numpy(logits())[None]
    seen = torch.tensor([[*PROMPT, *GENERATED]])
    for name, kind in order:
        if name in settings:
            theirs = kind(settings[name])(seen, theirs)
    theirs = torch.softmax(theirs.double(), -1)[0].numpy()
    ours = internals.probabilities(sampler(**settings), logits())
    assert ((ours > 0) == (theirs > 0)).all()
    np.testing.assert_allclose(ours, theirs, rtol=2e-6)  # they divide by T in float32


def test_how_many_tokens_are_drawn_from(tmp_path, torch, transformers):
    """Where generation_config.json says do_sample and nothing of top_k: here all are likely."""
    theirs = made("Llama", 0, torch, transformers)
    theirs.generation_config.update(do_sample=True, temperature=1e3, eos_token_id=None)
    theirs.save_pretrained(tmp_path)
    drawn = theirs.generate(torch.tensor([PROMPT[:2]]), max_new_tokens=1, num_return_sequences=4000)
    assert len(set(drawn[:, -1].tolist())) == 50 < theirs.config.vocab_size
    assert open_checkpoint(tmp_path).sampling() == Sampling(temperature=1e3, top_k=50)


def test_a_repeated_token_has_the_logit_of_transformers(torch, transformers):
    """Bit for bit."""
    names = transformers.generation.logits_process
    seen = torch.tensor([[*PROMPT, *GENERATED]])
    for penalty in (1.1, 1.3, 0.8):
        theirs = names.RepetitionPenaltyLogitsProcessor(penalty)(
            seen, torch.from_numpy(logits())[None]
        )[0].numpy()
        ours = internals.adjusted(sampler(repetition_penalty=penalty, temperature=1.0), logits())
        assert (ours.view(np.uint32) == theirs.view(np.uint32)).all()


@pytest.mark.parametrize(
    ("frequency", "presence"), [(0.5, 0.0), (0.0, 0.7), (0.3, 0.9), (-0.4, 1.5)]
)
def test_a_generated_token_has_the_logit_of_llama_cpp(frequency, presence):
    """Whose penalties count what was generated alone, if it is told of nothing else."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    theirs = llama_cpp.llama_sampler_init_penalties(VOCABULARY, 64, 1.0, frequency, presence)
    for token in GENERATED:
        llama_cpp.llama_sampler_accept(theirs, token)
    table = (llama_cpp.llama_token_data * VOCABULARY)(
        *((token, float(logit), 0.0) for token, logit in enumerate(logits()))
    )
    array = llama_cpp.llama_token_data_array(table, VOCABULARY, -1, False)
    llama_cpp.llama_sampler_apply(theirs, array)
    llama_cpp.llama_sampler_free(theirs)
    made = sampler(frequency_penalty=frequency, presence_penalty=presence, temperature=1.0)
    expected = np.array([each.logit for each in table], np.float32)
    ours = internals.adjusted(made, logits())
    np.testing.assert_allclose(ours, expected, rtol=1e-6)  # fused or not
    assert (expected != logits()).sum() == 3
