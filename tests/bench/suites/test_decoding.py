"""What a task of bench.run measures, and what is planned where memory is short."""

import gc
import math
import sys
import weakref
from dataclasses import replace

import numpy as np
import pytest

from bench.core.measure import Case
from bench.core.process import WorkerError
from bench.core.results import CYCLED, ENGINES, FP16, LLAMA, MEASURED, MODELLED, group_of
from bench.engines import llama_cpp
from bench.limits.peaks import PEAKS, Peak, barriers
from bench.suites.run import command as run
from bench.suites.run import decoding, plan
from bench.suites.run.plan import tasks_of
from ternops.cost.layouts import GROUPED, LAYOUTS, SIZES
from ternops.cpu_caches import last_level_bytes
from ternops.decoder.weights import random_weights
from ternops.isa import HAS_TILES
from tests.bench.small_runs import GIGABYTE, SMALL, TASK, row


def test_a_task_gives_a_row_for_each_engine_and_thread_count(found):
    """Decoding at every count, prefill at the last; each beside the limit that it has."""
    decode = [(row.engine, row.threads) for row in found.rows if row.test == "tg3"]
    assert decode == [(engine, n) for n in (1, 2) for engine in ENGINES]
    prompts = [(row.engine, row.threads) for row in found.rows if row.test == "pp512"]
    assert prompts == [(engine, 2) for engine in ENGINES]
    assert len(found.rows) == len(decode) + len(prompts)
    for each in found.rows:
        assert each.kind == MEASURED
        assert len(each.seconds) == (TASK.rounds if each.is_decode else 1)
        assert each.group == "125M/0"
        instruction = decoding.FLOATS if each.engine == FP16 else decoding.INTEGERS
        assert each.limited_by == (decoding.BANDWIDTH if each.is_decode else instruction)
        assert each.limit > 0
    # Probes of the nearest powers of two, which models of about the same size share.
    sizes = {
        round(math.log2(each.bytes_per_token - cache_bytes()))
        for each in found.rows if each.is_decode
    }  # fmt: skip
    assert len(sizes) < len(ENGINES)
    assert len(found.probes) == 2 * decoding.CONTENDERS * len(sizes)
    assert len({probe.name for probe in found.probes}) == len(found.probes)


def cache_bytes():
    """Keys and values that a token of three reads: float16, two positions in the mean."""
    return 2 * 2 * SMALL.layers * SMALL.hidden * 2


def test_bytes_per_token_are_counted_from_the_layout(found):
    """fp16: two bytes a weight, the head, the norms, one embedding row, the mean of the cache."""
    c = SMALL
    linear = sum(n * k for n, k in c.linear_shapes().values()) * c.layers
    norms = 4 * c.hidden * (2 * c.layers + 1)
    expected = 2 * linear + 2 * c.vocabulary * c.hidden + 2 * c.hidden + norms + cache_bytes()
    assert found.rows[0].bytes_per_token == expected
    modelled = decoding.modelled_fp16(found.rows[1])
    assert modelled.bytes_per_token == expected
    assert modelled.kind == MODELLED
    # Just as many bytes a second as the bandwidth beside the other row.
    base = found.rows[1]
    assert expected * modelled.speed == pytest.approx(base.limit * base.bytes_per_token)


@pytest.mark.parametrize("disturbed", [(), (0,), (0, 1, 2, 3)])
def test_a_peak_that_lost_its_time_slices_is_measured_again(disturbed):
    """Dots never stand for tiles, which are eight times faster: the best turn counts."""
    peaks = {}
    for what, seconds in (("dot", 8.0), ("tile", 1.0), ("multiply-add", 16.0)):
        values = [seconds * (20 if turn in disturbed else 1) for turn in range(5)]
        peaks[Peak(what, "", barriers, 100)] = Case(what, str, values=values)
    rates = decoding._rates(peaks, threads=2)
    assert rates == {decoding.DOTS: 25.0, decoding.TILES: 200.0, decoding.FLOATS: 12.5}


def test_the_tile_product_is_named():
    """Where there are tiles; the dot instruction where there are none."""
    assert ("tile product" if HAS_TILES else "dot instruction") == decoding.INTEGERS
    assert ("tile" in [peak.what for peak in PEAKS]) == bool(HAS_TILES)


def test_sizes_of_a_run_have_limits_of_one_rate():
    """Even where the peak was seen seven times slower beside one of them; tg is left as it is."""
    weights = {size: SIZES[size].linear_weights for size in ("125M", "700M")}
    prompt = {"test": "pp512", "limited_by": decoding.TILES}
    rows = [
        row(size="125M", limit=7e12 / weights["125M"], **prompt),
        row(size="700M", limit=1e12 / weights["700M"], **prompt),
        row(size="700M", limit=1e11 / weights["700M"], test="pp512", limited_by=decoding.FLOATS),
        row(size="700M", limit=3.0, limited_by=decoding.BANDWIDTH),
    ]
    found = decoding.with_one_peak(rows)
    rates = [each.limit * weights[each.size] for each in found[:3]]
    assert rates == pytest.approx([7e12, 7e12, 1e11])
    assert found[3] == rows[3]


def test_weights_are_let_go_of(small, monkeypatch):
    """Rows keep their values, not the gigabytes that they were measured on."""
    made = []
    original = decoding.random_weights

    def remember(*arguments, **options):
        weights = original(*arguments, **options)
        made.append(weakref.ref(weights))
        return weights

    monkeypatch.setattr(decoding, "random_weights", remember)
    assert decoding.measure(TASK).rows
    gc.collect()
    assert [each() for each in made] == [None] * len(ENGINES)


def test_cycled_layers_are_used_in_turn(small):
    """As many bytes a token, less memory; the rows say so."""
    task = replace(TASK, layers={"base3": 1}, prompt=False, threads=(1,))
    whole, cycled = (decoding.measure(each).rows[0] for each in (replace(
        task, layers={"base3": 2}), task))  # fmt: skip
    assert (whole.kind, cycled.kind) == (MEASURED, CYCLED)
    assert cycled.bytes_per_token == whole.bytes_per_token
    weights = decoding.random_weights(replace(SMALL, layers=5), "base3", distinct=2)
    first, second = weights.layers[:2]
    assert first is not second
    assert weights.layers == [first, second, first, second, first]


def test_a_missing_peer_costs_a_line(small, monkeypatch):
    """And ours are measured all the same."""
    llama_cpp._load.cache_clear()  # tests of peers may have loaded it
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    task = replace(TASK, layers={FP16: 2}, peers=("llama.cpp F16",), prompt=False)
    found = decoding.measure(task)
    assert [each.engine for each in found.rows] == [FP16, FP16]
    assert len(found.left_out) == 1
    assert found.left_out[0].startswith("125M llama.cpp F16: ")


def test_a_peer_that_dies_costs_its_rows(small, monkeypatch):
    """Those of prompts, if it dies of them; generating is measured, and says what is special."""

    class Peer:
        remark = "without something"

        def prompt(self, tokens):
            raise WorkerError(f"llama.cpp: killed by signal 11 (SIGSEGV) in prefill {tokens}")

        def generate(self, tokens):
            return tokens / 100

        def wake(self):
            self.generate(1)

    engine = "llama.cpp F16"
    monkeypatch.setattr(decoding, "llama", lambda *arguments: (Peer(), 2.0))
    monkeypatch.setattr(llama_cpp, "about", lambda: ("llama.cpp 0", ""))
    found = decoding.measure(replace(TASK, layers={FP16: 2}, peers=(engine,)))
    assert found.left_out == [
        f"125M pp512 {engine}: llama.cpp: killed by signal 11 (SIGSEGV) in prefill 512"
    ]
    rows = [each for each in found.rows if each.engine == engine]
    assert [(each.test, each.threads) for each in rows] == [("tg3", 2)]
    assert rows[0].seconds == pytest.approx([0.005] * TASK.rounds)
    assert rows[0].version == "llama.cpp 0; without something"
    assert {each.test for each in found.rows if each.engine == FP16} == {"tg3", "pp512"}


def plans(size, free, engines=tuple(ENGINES), effort=plan.DEFAULT):
    return tasks_of(size, engines, [1, 2], effort, free)


def test_what_fits_is_measured_together():
    """All engines of a small size take turns in one process."""
    (task,), left_out = plans("700M", 20 * GIGABYTE)
    assert task.layers == dict.fromkeys(ENGINES, 24)
    assert {task.kind(engine) for engine in ENGINES} == {MEASURED}
    assert left_out == []
    assert task.prompt
    assert task.tokens == 16


def test_what_does_not_fit_together_is_measured_in_groups():
    """Each within the memory that may be used, with the same tokens; no prompts of large models."""
    tasks, left_out = plans("7B", 20 * GIGABYTE)
    assert left_out == []
    assert [engine for task in tasks for engine in task.layers] == list(ENGINES)
    assert len({task.tokens for task in tasks}) == 1
    for task in tasks:
        needed = sum(plan.needed_bytes("7B", *each) for each in task.layers.items())
        assert needed <= 20 * GIGABYTE * plan.MEMORY_SHARE
        assert not task.prompt


def test_fp16_that_does_not_fit_is_left_to_the_model():
    """With a line; packed weights are measured."""
    tasks, left_out = plans("13B", 20 * GIGABYTE)
    assert FP16 not in [engine for task in tasks for engine in task.layers]
    assert len(left_out) == 1
    assert left_out[0].startswith("13B fp16: needs 25.")
    assert left_out[0].endswith(" GB, 20.0 GB are free")


@pytest.mark.parametrize("free", [25, 12, 6, 3, 1])
def test_packed_weights_that_do_not_fit_are_cycled(free):
    """Never more than is free, never so few that a cache could hold them."""
    tasks, left_out = plans("100B", free * GIGABYTE)
    layers = {engine: n for task in tasks for engine, n in task.layers.items()}
    assert (layers.get("base3") == 72) == (free == 25)
    for engine, count in layers.items():
        assert plan.needed_bytes("100B", engine, count) <= free * GIGABYTE * plan.MEMORY_SHARE
        distinct = plan.linear_bytes("100B", engine) // 72 * count
        assert distinct >= 4 * last_level_bytes()
    assert len(left_out) == len(ENGINES) - len(layers)


def test_peers_are_measured_at_their_sizes_where_they_fit():
    """In the first group only."""
    engines = (FP16, "base3", *LLAMA)
    (task,), _ = plans("700M", 20 * GIGABYTE, engines)
    assert task.peers == tuple(LLAMA)
    (task,), _ = plans("350M", 20 * GIGABYTE, engines)
    assert task.peers == ()
    tasks, left_out = plans("3B", 20 * GIGABYTE, (*ENGINES, *LLAMA))
    assert tasks[0].peers[0] == "llama.cpp F16"
    assert [engine for task in tasks for engine in task.layers] == list(ENGINES)
    assert all(task.peers == () for task in tasks[1:])
    assert len(left_out) == len(LLAMA) - len(tasks[0].peers) > 0
    assert "3B llama.cpp Q4_0: needs 4.2 GB, " in left_out[-1]


def test_the_bytes_of_a_hybrid():
    """Of both kinds of layers, which have other matrices; as random weights of the layout have."""
    config = replace(LAYOUTS["Qwen3.5 27B"], vocabulary=512)
    weights = random_weights(config, "two_bit", distinct=1, group=128)
    expected = plan.linear_bytes("Qwen3.5 27B", "two_bit")
    assert weights.linear_bytes == pytest.approx(expected, rel=1e-4)
    assert group_of("Qwen3.5 27B", "two_bit") == 128
    assert "Qwen3.5 27B" not in plan.WITH_PEERS


def test_layouts_with_scales_of_groups():
    """Are measured by the encodings that have them, by fp16, and by the type of llama.cpp that is
    fast; the embedding and the head are ternary, too. All bytes are those of the weights."""
    tasks, left_out = plans("Qwen3 1.7B", 60 * GIGABYTE, (*ENGINES, *LLAMA))
    assert left_out == []
    (task,) = tasks
    assert list(task.layers) == [FP16, "two_bit", "base3"]
    assert task.peers == ("llama.cpp Q4_0",)
    assert plan.peer_head("Qwen3 1.7B", "llama.cpp Q4_0") == "q4_0"
    assert plan.peer_head("700M", "llama.cpp Q4_0") == "f16"
    config = replace(GROUPED["Qwen3 1.7B"], vocabulary=4096)
    share = config.vocabulary / GROUPED["Qwen3 1.7B"].vocabulary
    for engine in task.layers:
        group = group_of("Qwen3 1.7B", engine)
        assert group == (0 if engine == FP16 else 128)
        weights = random_weights(config, engine, distinct=1, group=group)
        found = weights.linear_bytes, weights.head.nbytes
        expected = plan.linear_bytes("Qwen3 1.7B", engine), plan.head_bytes("Qwen3 1.7B", engine)
        # Each matrix has a line more.
        assert found == pytest.approx((expected[0], share * expected[1]), rel=1e-4)


def test_a_task_of_a_layout_with_scales_of_groups(monkeypatch):
    """Rows of each engine, llama.cpp's too where it is installed, beside their limits."""
    small = replace(
        GROUPED["Qwen3 1.7B"], hidden=256, ffn=512, layers=2, heads=4, kv_heads=2, vocabulary=512,
        context=600,
    )  # fmt: skip
    monkeypatch.setitem(GROUPED, "Qwen3 1.7B", small)
    engines = {FP16: 2, "two_bit": 2, "base3": 2}
    task = replace(TASK, size="Qwen3 1.7B", layers=engines, peers=("llama.cpp Q4_0",), threads=(1,))
    found = decoding.measure(task)
    assert [row.engine for row in found.rows if row.is_decode][:3] == list(engines)
    assert len(found.rows) == 2 * (3 + (not found.left_out))
    for each in found.rows:
        assert each.limit > 0
        assert each.size == "Qwen3 1.7B"


def test_modelled_rows_need_a_limit():
    """Of the first engine that has one, for each test and thread count; none beside fp16."""
    rows = [
        row(limit=4.0, bytes_per_token=100, group="a"),
        row(engine="tl1", limit=9.0, bytes_per_token=100),
    ]
    (modelled,) = run._modelled(rows)
    assert modelled.engine == FP16
    assert modelled.over(rows[0]).median == pytest.approx(modelled.speed * 0.375)  # pair by pair
    assert modelled.speed == pytest.approx(400 / modelled.bytes_per_token)
    assert run._modelled([*rows, row(engine=FP16)]) == []
    assert np.isnan(modelled.joules)
