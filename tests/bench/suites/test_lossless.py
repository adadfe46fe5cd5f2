"""The lossless table: each of its claims fails where something is wrong."""

from __future__ import annotations

import dataclasses
import itertools
import json
import types

import numpy as np
import pytest

from bench.suites.lossless import proof as lossless
from bench.suites.lossless import tier as lossless_tier
from bench.suites.lossless.proof import COMPUTATIONS, FP16
from ternops.ahead.jobs import needed
from ternops.decoder import Model, Session, reference
from ternops.encodings import ENCODINGS, TERNARY
from ternops.encodings.blocks import Blocks
from ternops.isa import detect
from tests.helpers import processes
from tests.helpers.marks import OF_TIERS

ALL = [*TERNARY, FP16]
BLOCKS = [name for name in TERNARY if isinstance(ENCODINGS[name], Blocks)]
NUMBER, CONTEXT = 3, 24


@pytest.fixture(scope="module")
def text():
    """Windows that are short enough for the oracle."""
    return lossless_tier.text_of(NUMBER, CONTEXT)


@pytest.fixture(scope="module")
def oracles(text):
    """Computed once: nothing that the tests break reaches them."""
    return lossless._oracles(text, lambda what: None)


@pytest.fixture
def short(monkeypatch):
    """A proof on that text."""
    monkeypatch.setattr(lossless, "WINDOWS", NUMBER)
    monkeypatch.setattr(lossless, "CONTEXT", CONTEXT)


@pytest.fixture
def here(short, oracles, monkeypatch):
    """A proof of this process's tier, in this process."""
    tier = next(each for each in detect.available() if each.name == detect.TIER.name)
    monkeypatch.setattr(detect, "available", lambda: (tier,))
    monkeypatch.setattr(lossless, "_oracles", lambda text, advance: oracles)

    def figures(tier, threads, windows):
        found = lossless_tier.computed(threads, windows, CONTEXT)
        return [json.loads(json.dumps(each)) for each in found]

    monkeypatch.setattr(lossless, "_computed_on", figures)


@pytest.fixture(scope="module")
def right(text):
    """What each encoding computes with 1 and 2 threads, nothing broken."""
    return {each: list(lossless_tier.computed_with(each, [1, 2], text)) for each in ALL}


def prove(threads):
    return lossless.prove(threads, lossless.tiers(few=False), lambda what: None)


def flip(logits):
    """The lowest bit of one logit."""
    logits.view(np.uint32).reshape(-1)[-1] ^= 1
    return logits


def flip_read(monkeypatch, encoding, wanted):
    """In what two threads read of the window `wanted` with one encoding."""
    logits = Model.logits

    def wrong(model, tokens):
        found = logits(model, tokens)
        is_it = model.encoding == encoding and model.threads == 2 and list(tokens) == wanted
        return flip(found) if is_it else found

    monkeypatch.setattr(Model, "logits", wrong)


def flip_decoded(monkeypatch, encoding, position, kind):
    """In what two threads decode at a position with one encoding and `sparse` setting."""
    step = Session.step

    def wrong(session, token):
        found = step(session, token)
        model = session._model
        is_it = model.encoding == encoding and model.threads == 2 and model.sparsity.kind == kind
        return flip(found) if is_it and session.position == position else found

    monkeypatch.setattr(Session, "step", wrong)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["first window", "last window", "decoded", "sparse"])
@pytest.mark.parametrize("encoding", ALL)
def test_a_wrong_bit_is_no_lossless_run(encoding, where, here, right, text, monkeypatch):
    """It is found, and blamed on its encoding and thread count alone."""

    def figures(tier, threads, windows):
        anew = {encoding: list(lossless_tier.computed_with(encoding, threads, text))}
        found = itertools.chain.from_iterable({**right, **anew}.values())
        return [json.loads(json.dumps(each)) for each in found]

    monkeypatch.setattr(lossless, "_computed_on", figures)
    name = {FP16: "fp16"}.get(encoding, encoding)
    if where == "sparse" and name not in BLOCKS:
        pytest.skip(f"nothing is left out of {name} weights")
    if where in ("decoded", "sparse"):
        kind = {"decoded": "never", "sparse": "always"}[where]
        flip_decoded(monkeypatch, name, CONTEXT - 1, kind)
    else:
        flip_read(monkeypatch, name, text[0 if where == "first window" else -1])
    proof = prove([1, 2])
    assert not proof.lossless
    found = {row.encoding: row.bit_identical for row in proof.rows}
    assert found == {each: {1: True, 2: each != encoding} for each in ALL}
    assert {row.tier for row in proof.rows} == {detect.TIER.name}
    where = f"{encoding} on {detect.TIER.name}, 2 thread(s)"
    assert lossless.failures(proof.as_json()) == [f"{where}: logits differ from NumPy's"]


@pytest.mark.parametrize("encoding", [FP16, "ternary"])
def test_a_bit_that_is_wrong_everywhere(encoding, here, monkeypatch):
    """In what every encoding reads with any threads, alike: the oracle knows better."""
    logits = Model.logits

    def wrong(model, tokens):
        is_it = (model.encoding == "fp16") == (encoding == FP16)
        return flip(logits(model, tokens)) if is_it else logits(model, tokens)

    monkeypatch.setattr(Model, "logits", wrong)
    proof = prove([1, 2])
    assert not proof.lossless
    for row in proof.rows:
        assert set(row.bit_identical.values()) == {row.computation != encoding}


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen", [{detect.TIER.name}, pytest.param({detect.TIER.name, "generic"}, marks=OF_TIERS)]
)
def test_every_encoding_and_tier(short, text, oracles, chosen):
    """In processes of their own: bit for bit, and with NumPy's perplexity and likeliest tokens.

    On one tier and on two; `test_every_tier_passes_the_exactness_tests` has them all.
    """
    done = []
    names = sorted(chosen, key=lossless.tiers(few=False).index)
    proof = lossless.prove([1, 2], names, done.append)
    assert len(done) == lossless.steps(names)
    assert [(r.tier, r.encoding) for r in proof.rows] == list(itertools.product(names, ALL))
    assert proof.lossless
    assert lossless.failures(proof.as_json()) == []
    assert (proof.tokens, proof.windows) == (CONTEXT, NUMBER)
    for computation in COMPUTATIONS:
        model = Model.from_pretrained(weights=computation, threads=1)
        exact = [reference.logits(model, tokens) for tokens in text]
        double = [reference.logits(model, tokens, reference.Double) for tokens in text]
        agreement = np.mean(np.argmax(exact, axis=2) == np.argmax(double, axis=2))
        assert proof.float64[computation] == pytest.approx(perplexity(double, text), rel=1e-12)
        for row in proof.rows:
            if row.computation == computation:
                assert row.perplexity == pytest.approx(perplexity(exact, text), rel=1e-12)
                assert row.agreement == agreement


@pytest.mark.slow
def test_a_tiers_process_has_nothing_to_compile():
    """All that it asks for, with prompts long and short, has been compiled beside other tiers'."""
    code = """
from tests.helpers import internals
asked = internals.count_lookups()
from bench.suites.lossless.tier import computed
list(computed([2], 1, 66))
print(*asked)
"""
    asked = set(processes.run_code(code, **processes.current()).split())
    jobs = needed(TERNARY, decoder=True, plain=True)
    assert any("gemm" in key for key in asked)
    assert asked <= set(jobs), asked - set(jobs)


def perplexity(logits, text):
    """Of equally long windows, by the oracle's formula."""
    each = [reference.perplexity(*pair) for pair in zip(logits, text, strict=True)]
    return np.exp(np.mean(np.log(each)))


@pytest.mark.slow
@pytest.mark.parametrize("computation", COMPUTATIONS)
def test_agreement_is_the_share_of_positions(computation, here, oracles, text, monkeypatch):
    """Of all windows: with other tokens at some positions of the float64 pass, it is less."""
    model = Model.from_pretrained(weights=computation, threads=1)
    greedy = np.argmax([reference.logits(model, tokens) for tokens in text], axis=2).reshape(-1)
    greedy[::9] += 1
    changed = dataclasses.replace(oracles[computation], greedy=greedy)
    monkeypatch.setitem(oracles, computation, changed)
    rows = [row for row in prove([1]).rows if row.computation == computation]
    assert {row.agreement for row in rows} == {1 - 8 / 72}


def test_the_record_is_plain_json(here):
    """It comes back as it was; a perplexity that is not finite is null."""
    proof = prove([1])
    record = proof.as_json()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["tokens"] == NUMBER * CONTEXT
    assert [row["encoding"] for row in record["table"]] == ALL
    assert record["table"][0]["bit_identical"] == {"1": True}
    rows = [dataclasses.replace(proof.rows[0], perplexity=float("nan")), *proof.rows[1:]]
    broken = dataclasses.replace(proof, rows=rows)
    assert not broken.lossless
    record = json.loads(json.dumps(broken.as_json(), allow_nan=False))
    assert record["table"][0]["perplexity"] is None
    (line,) = lossless.failures(record)
    assert line.startswith(f"two_bit on {detect.TIER.name}: perplexity nan, the float64")


def test_another_last_digit_is_no_lossless_run(here):
    """Of the perplexity of one encoding."""
    proof = prove([1])
    last = np.nextafter(proof.rows[1].perplexity, np.inf)
    rows = [proof.rows[0], dataclasses.replace(proof.rows[1], perplexity=float(last))]
    wrong = dataclasses.replace(proof, rows=[*rows, *proof.rows[2:]])
    assert proof.lossless
    assert not wrong.lossless
    assert lossless.failures(wrong.as_json()) == ["perplexities of the same logits differ"]


def test_a_perplexity_that_is_off(here):
    """By more than is allowed for so many tokens."""
    record = prove([1]).as_json()
    most = lossless.MAX_PERPLEXITY_DIFFERENCE * np.sqrt(4096 / record["tokens"])
    for factor, count in ((1.01, 1), (0.99, 0)):
        record["perplexity_float64"][FP16] = record["table"][-1]["perplexity"] / (1 + most * factor)
        assert len(lossless.failures(record)) == count


def test_a_tier_that_fails_is_one_line(short, monkeypatch):
    """What its process said last."""
    monkeypatch.setattr(lossless, "CONTEXT", 1)
    with pytest.raises(ValueError, match=r"^the lossless table on generic: .*: context=1: "):
        lossless._computed_on("generic", [1], 1)
    with pytest.raises(ValueError, match=r"TERNOPS_ISA='none': unknown tier"):
        lossless._computed_on("none", [1], 1)


@pytest.mark.slow
@pytest.mark.parametrize(("option", "words"), [("--windows=0", "windows=0"), ("--threads=0", "0")])
def test_wrong_arguments_are_one_line(option, words):
    """Of the process that computes a tier's figures."""
    done = processes.python("-m", "bench.suites.lossless.tier", "--threads", "1", option)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("own", ["best", "second", "generic"])
def test_the_quick_forms_tiers(monkeypatch, own):
    """The process's own, "generic", and one between; the long form has all."""
    tiers = tuple(
        types.SimpleNamespace(name=name) for name in ("best", "second", "third", "generic")
    )
    monkeypatch.setattr(lossless.detect, "available", lambda: tiers)
    monkeypatch.setattr(lossless.detect, "TIER", types.SimpleNamespace(name=own))
    expected = {
        "best": ["best", "third", "generic"], "second": ["second", "third", "generic"],
        "generic": ["generic"],
    }  # fmt: skip
    assert lossless.tiers(few=True) == expected[own]
    assert lossless.tiers(few=False) == ["best", "second", "third", "generic"]
