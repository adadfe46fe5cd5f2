"""What is found of a model's weights in a shared cache: what is read, and what that tells."""

from dataclasses import replace

import pytest

from bench.core.results import Probe
from bench.suites.run import decoding, found
from bench.suites.run.found import found_share, held_cases, spans
from ternops.cost.layouts import SIZES
from ternops.cost.probes import Reader
from ternops.decoder.weights import operand_of, random_weights
from tests.bench.small_runs import SMALL, TASK


@pytest.mark.parametrize("distinct", [None, 1])
@pytest.mark.parametrize("kind", ["fp16", "two_bit"])
def test_every_matrix_is_read_once(kind, distinct):
    """Neighbours together, layers that are used again only once, and no norms."""
    weights = random_weights(SMALL, kind, distinct=distinct)
    layers = weights.layers[:distinct]
    matrices = [each for layer in layers for each in layer.linear.values()] + [weights.head]
    where = spans(weights)
    size = sum(operand_of(each).nbytes for each in matrices)
    # Room between two that begin at a cache line is read too.
    assert size <= sum(length for _, length in where) < size + 64 * len(matrices)
    assert len(where) < len(matrices)
    ends = [address + length for address, length in where]
    assert all(end < start for end, (start, _) in zip(ends, where[1:], strict=False))


@pytest.fixture
def small_cache(monkeypatch):
    """A shared cache that is larger than the tiny model with ternary weights, not with fp16."""
    weights = {kind: random_weights(SMALL, kind) for kind in ("fp16", "two_bit", "base3")}
    monkeypatch.setattr(found, "has_own_caches", lambda: True)
    monkeypatch.setattr(found, "cpu_cache_bytes", lambda: {1: 1 << 10, 2: 1 << 12, 3: 1 << 20})
    monkeypatch.setattr(found, "last_level_bytes", lambda: weights["fp16"].bytes_per_token)
    return weights


def test_a_model_that_no_cache_holds_is_not_read(small_cache, monkeypatch):
    """The others are, beside bytes from memory and from the cache; nothing without such a cache."""
    reader = Reader(1 << 20)
    cases = held_cases(small_cache, reader, 2)
    assert list(cases) == ["two_bit", "base3", ""]
    assert [each.metadata["ternops_bytes"] for each in cases[""]] == [1 << 20, 1 << 15]
    for each in cases["two_bit"]:
        each.before()
        each.run()
        each.release()
    monkeypatch.setattr(found, "has_own_caches", lambda: False)
    assert held_cases(small_cache, reader, 2) == {}


@pytest.mark.parametrize("settled", [True, False])
def test_weights_are_read_behind_the_turn_of_their_engine(small_cache, monkeypatch, settled):
    """Where turns are settled; what memory and the cache deliver last, before the read probes."""
    turns = []

    def interleave(cases, rounds, advance):
        turns[:] = [case.name for case in cases]
        for case in cases:
            case.values.append(1.0)

    monkeypatch.setitem(SIZES, "125M", SMALL)
    monkeypatch.setattr(decoding, "interleave", interleave)
    engines = dict.fromkeys(small_cache, SMALL.layers)
    task = replace(TASK, layers=engines, threads=(1,), prompt=False, settled=settled)
    probes = decoding.measure(task).probes
    named = [name for name in turns if "prefetch" not in name]
    read = [f"read {each}, 1 thread(s)" for each in ("two_bit", "base3", "memory", "L3")]
    assert named == (["fp16", "two_bit", read[0], "base3", *read[1:]] if settled else [*engines])
    assert {each.name for each in probes} >= set(read if settled else ())


def probe(what, rate, threads=1, size=100):
    about = {"ternops_found": what, "ternops_threads": threads, "ternops_bytes": size}
    return Probe({"name": what, **about}, (size / rate, size / rate, 5 * size / rate))


@pytest.mark.parametrize(
    ("rate", "share"), [(10, 0), (9, 0), (40, 1), (50, 1), (16, 0.5), (20, 2 / 3)]
)
def test_the_share_is_that_of_the_time(rate, share):
    """Between the time from memory and that from the cache, by medians; never beyond either."""
    probes = [
        probe("memory", 10), probe("L3", 40), probe("base3", rate, size=30), probe("tl1", 10),
        probe("base3", 10, threads=2), Probe({"name": "read", "ternops_bytes": 1}, (1.0,)),
    ]  # fmt: skip
    assert found_share(probes, "base3", 1) == pytest.approx(share)
    assert found_share(probes, "base3", 2) is None
    assert found_share(probes, "two_bit", 1) is None


def test_a_cache_that_is_no_faster_is_none():
    """As where a machine's memory is as fast, or its neighbours leave nothing."""
    probes = [probe("memory", 10), probe("L3", 10.5), probe("base3", 10.5)]
    assert found_share(probes, "base3", 1) is None
