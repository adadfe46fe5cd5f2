"""The trained checkpoint with a scale for 128 inputs, in transformers and in llama.cpp."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ternops.decoder import Model, open_checkpoint, reference
from ternops.decoder.perplexity import perplexity
from tests.helpers import trained
from tests.peers.random_models import logits_in_double

pytestmark = pytest.mark.peers

STEPS = 64
#: After which it goes on with something, of which it is sure enough: by more than int8 activations
#: change the logits of the two likeliest tokens.
PROMPTS = (
    "            return\n    _showwarnmsg_impl(msg)\n\n",
    "           triangular\n           normal (Gaussian)\n           lognormal\n",
    '            if is_subtest:\n                self.stream.write("  ")\n'
    "            self.stream.write(self.getDescription(test))\n",
    "\n    def __len__(self):\n        return 13\n",
)
#: Different tokens after a prompt: it is small, and repeats itself soon.
MIN_DIFFERENT = 10
#: Of all positions, those whose likeliest token is the same.
MIN_SAME = 0.97
#: Of the largest logit.
NEAR = 1e-6
#: Farther from float64 than transformers in float32 is.
MAX_RATIO = 1.8


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """The checkpoint as llama.cpp has it."""
    return trained.write_files(tmp_path_factory.mktemp("trained"))["Q2_0"]


@pytest.fixture(scope="module")
def texts():
    """Windows of tokens."""
    return trained.texts()


@pytest.fixture
def theirs(torch, transformers):
    """transformers' model of the folder, in float32."""
    return transformers.AutoModelForCausalLM.from_pretrained(trained.FOLDER, dtype=torch.float32)


def logits_of(model, tokens, torch):
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].numpy()


def round_activations(model, torch):
    """int8 with a step for 128 inputs, before each product."""

    def rounded(module, inputs):
        parts = inputs[0].unflatten(-1, (-1, 128))
        most = parts.abs().amax(-1, keepdim=True).clamp(min=1e-36)
        return ((parts * (127 / most)).round() * (most / 127)).flatten(-2)

    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(rounded)


def check_text(ours, theirs, texts, bound):
    """The perplexity is near, and the likeliest token is the same nearly everywhere."""
    found, asked = ([each(tokens) for tokens in texts] for each in (ours, theirs))
    same = np.mean(np.concatenate(found).argmax(axis=1) == np.concatenate(asked).argmax(axis=1))
    ratio = np.divide(*(perplexity(trained.losses_of(each, texts)) for each in (found, asked)))
    print(f"perplexity {ratio - 1:+.3%}, the same token in {same:.2%}")
    assert abs(ratio - 1) < bound
    assert same > MIN_SAME


def test_the_same_tokenizer(transformers, texts):
    """transformers opens that of the folder."""
    ours = open_checkpoint(trained.FOLDER).tokenizer()
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained.FOLDER)
    for text in map(ours.decode, texts):
        assert tokenizer(text)["input_ids"] == ours.encode(text).ids


@pytest.mark.parametrize("weights", ["two_bit", "fp16"])
def test_the_same_greedy_tokens_as_transformers(theirs, torch, weights):
    """64 after each prompt, with int8 activations and without."""
    tokenizer = open_checkpoint(trained.FOLDER).tokenizer()
    model = Model.from_pretrained(trained.FOLDER, weights=weights, threads=2)
    theirs.generation_config.eos_token_id = None
    for prompt in PROMPTS:
        tokens = tokenizer.encode(prompt).ids
        with torch.no_grad():
            expected = theirs.generate(
                torch.tensor([tokens]), do_sample=False, max_new_tokens=STEPS
            )
        found = list(model.generate(tokens, STEPS, stop_at_eos=False))
        assert tokens + found == expected[0].tolist(), tokenizer.decode(found)
        assert len(set(found)) > MIN_DIFFERENT


def test_the_same_greedy_tokens_as_llama_cpp(path):
    """64 after each prompt, out of the same Q2_0 file."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    tokenizer = open_checkpoint(trained.FOLDER).tokenizer()
    model = Model.from_pretrained(path, threads=2)
    theirs = llama_cpp.Llama(str(path), n_ctx=trained.CONTEXT, n_threads=2, verbose=False)
    for prompt in PROMPTS:
        tokens = theirs.tokenize(prompt.encode())
        assert tokens == tokenizer.encode(prompt).ids
        steps = theirs.generate(tokens, temp=0.0, repeat_penalty=1.0)
        expected = list(itertools.islice(steps, STEPS))
        found = list(model.generate(tokens, STEPS, stop_at_eos=False))
        assert found == expected, tokenizer.decode(found)


def test_the_perplexity_of_llama_cpp(path, texts):
    """Within 1%."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    model = Model.from_pretrained(path, threads=2)
    theirs = llama_cpp.Llama(
        str(path), n_ctx=trained.CONTEXT, n_threads=2, verbose=False, logits_all=True
    )

    def their_logits(tokens):
        theirs.reset()
        theirs.eval(tokens)
        return np.array(theirs.scores[: len(tokens)])

    check_text(model.logits, their_logits, texts, 0.01)


def test_the_perplexity_of_transformers(theirs, torch, texts):
    """Whose activations are floats: within 0.3%."""
    model = Model.from_pretrained(trained.FOLDER, threads=2)
    check_text(model.logits, lambda tokens: logits_of(theirs, tokens, torch), texts, 0.003)


@pytest.mark.parametrize("rounds", [False, True])
def test_float64(theirs, torch, in_double, texts, rounds):
    """The float64 reference, with activations as they are and with int8 ones, is theirs in float64;
    the kernels, with keys and values in float32 as theirs, are no farther from it than 1.8 times
    what theirs in float32 is."""
    tokens = texts[0]
    if rounds:
        round_activations(theirs, torch)
    single = logits_of(theirs, tokens, torch)
    exact = logits_in_double(theirs, tokens, torch, in_double)
    weights = "two_bit" if rounds else "fp16"
    models = {
        cache: Model.from_pretrained(trained.FOLDER, weights=weights, threads=2, cache=cache)
        for cache in ("fp32", "fp16")
    }
    found = reference.logits(models["fp32"], tokens, reference.Double)
    near = np.abs(found - exact).max() / np.abs(exact).max()
    print(f"float64: {near:.2g}")
    assert near < NEAR
    logits = {"theirs": single, **{cache: each.logits(tokens) for cache, each in models.items()}}
    errors = {
        name: np.sqrt(np.square(each - exact).mean()) / exact.std() for name, each in logits.items()
    }
    print(", ".join(f"{name} {error:.2g}" for name, error in errors.items()))
    assert errors["fp32"] < MAX_RATIO * errors["theirs"]
