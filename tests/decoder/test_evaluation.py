"""What lm-evaluation-harness is told: each number and text is that of the model alone."""

from __future__ import annotations

import pytest

from ternops.decoder import Model, Session
from ternops.decoder.perplexity import likelihood
from tests.helpers.small_models import small_config, small_model

QUESTION = "def add(one, other):\n    return one + other\n\n\nclass Adder:"
#: Questions with answers, of which some begin alike, and one that answers nothing.
PAIRS = [
    (QUESTION[begin:], answer)
    for begin in (0, 0, 21, 50)
    for answer in ("\n    pass", "\n    def __init__(self):\n", "\nimport os", "x")
] + [("", "import os\n"), ((QUESTION + "\n") * 29 + QUESTION, "x"), ("x", "")]


@pytest.fixture(scope="module")
def evaluation():
    pytest.importorskip("lm_eval", reason="lm-eval is not installed (ternops[eval])")
    from ternops import evaluation

    return evaluation


def instances(*arguments):
    """What the harness hands to a model."""
    from lm_eval.api.instance import Instance

    return [Instance("any", {}, each, number) for number, each in enumerate(arguments)]


@pytest.fixture(scope="module", params=["tiny", "delta nets"])
def model(request):
    """The tiny one, and one of its vocabulary whose states cannot be shared."""
    if request.param == "tiny":
        return Model.from_pretrained(threads=2)
    return small_model(small_config("hidden 24", "qwen3.5", vocabulary=1024, context=200, eos=(1,)))


def alone(model, tokens, start):
    """The sum and whether it is greedy, of a new session."""
    found = likelihood(Session(model), tokens, start)
    return -sum(found.losses), found.is_greedy


@pytest.mark.parametrize("size", [1, 8])
def test_likelihoods(evaluation, model, size):
    """To the last bit, in the order of the questions; long ones without their beginning."""
    ours = evaluation.TernopsLM(model=model, batch_size=size)
    found = ours.loglikelihood(instances(*PAIRS))
    for (context, answer), each in zip(PAIRS, found, strict=True):
        if context:
            before = ours.tok_encode(context)
            behind = ours.tok_encode(context + answer)[len(before) :]
        else:
            before = [ours.prefix_token_id]
            behind = ours.tok_encode(answer, add_special_tokens=False)
        tokens = (before + behind)[-(ours.max_length + 1) :]
        start = max(1, len(tokens) - len(behind))
        assert each == alone(model, tokens, start)


def test_rolling(evaluation, model):
    """Windows of texts, of which one has no tokens."""
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    ours = evaluation.TernopsLM(model=model, batch_size=3, max_length=40)
    texts = [QUESTION, "", QUESTION * 3, "x"]
    found = ours.loglikelihood_rolling(instances(*[(text,) for text in texts]))
    for text, each in zip(texts, found, strict=True):
        total = 0
        windows = get_rolling_token_windows(ours.tok_encode(text), ours.prefix_token_id, 40, 1)
        for context, behind in map(make_disjoint_window, windows):
            total += alone(model, (context + behind)[-41:], len(context))[0]
        assert each == total


def test_answers(evaluation, model):
    """Greedy and drawn, with a seed that is the question's place, up to a text to stop at."""
    ours = evaluation.TernopsLM(model=model, batch_size=3)
    asked = []
    for place, (context, _) in enumerate(PAIRS[:9]):
        settings = {"until": ["\n\n", "("], "max_gen_toks": 5 + place}
        if place % 2:
            settings |= {"do_sample": True, "temperature": 1.0}
        asked.append((context, settings))
    found = ours.generate_until(instances(*asked))
    for place, ((context, settings), answer) in enumerate(zip(asked, found, strict=True)):
        tokens = list(model.generate(
            ours.tok_encode(context), settings["max_gen_toks"], settings.get("temperature", 0.0),
            seed=place,
        ))  # fmt: skip
        text = ours.tokenizer.decode(tokens)
        ends = [text.index(stop) for stop in settings["until"] if stop in text]
        assert answer == text[: min(ends, default=len(text))]
