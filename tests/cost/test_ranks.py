"""Several ranks: what each has of a model, what messages take, and which layout is chosen."""

import math
from dataclasses import replace

import pytest

from ternops.cost import load, predict
from ternops.cost.latency import timed
from ternops.cost.layouts import SIZES, large
from ternops.cost.link import Link
from ternops.cost.profile import parse
from ternops.cost.ranks import (
    BANDWIDTH,
    LATENCY,
    OWN,
    SHARED,
    best_layout,
    predict_ranks,
    saturation,
    why,
)
from ternops.cost.shares import GATHERS, shared_machine, stages
from ternops.cost.workload import linear_bytes, weight_bytes, workload
from ternops.decoder.cache import kv_cache_bytes
from ternops.ranks.split import UNIT, Layout, parse_layout
from tests.helpers.profiles import PROFILE

#: Next to nothing, a millisecond, and a slow rate.
FREE = Link("free", 1e-12, 1e18)
LATE = Link("late", 1e-3, 1e18)
SLOW = Link("slow", 1e-12, 1e7)
CONFIG = SIZES["7B"]
MACHINE = replace(parse(PROFILE, "x.toml"), memory=1e12)


def seconds(found):
    return math.fsum(found.seconds.values())


def parts(stage):
    return {part.name: part for part in stage.work.parts}


@pytest.mark.parametrize("size", ["700M", "2B4T", "7B"])
def test_one_rank_alone_has_all(size):
    """And is predicted as ever."""
    (stage,) = stages(SIZES[size], "base3", Layout(), 128, 1, 1)
    assert stage.work == workload(SIZES[size], "base3", "decode", 128)
    found = predict_ranks(SIZES[size], MACHINE, LATE, Layout())
    expected = predict(SIZES[size], MACHINE, "base3")
    assert found.tokens_per_second == pytest.approx(expected.tokens_per_second)
    assert found.joules_per_token == pytest.approx(expected.joules_per_token)
    assert found.link_share == 0


@pytest.mark.parametrize("tp", [2, 3, 4, 7, 8, 64])
@pytest.mark.parametrize("size", ["2B4T", "7B"])
def test_the_largest_rank_has_no_less_than_its_part(size, tp):
    """Of rows in whole units and of whole heads, and not a unit more of any matrix than that."""
    config = SIZES[size]
    (whole,), (share,) = (
        stages(config, "two_bit", Layout(ranks), 128, 1, 1) for ranks in (1, tp)
    )  # fmt: skip
    for name, part in parts(whole).items():
        mine = parts(share)[name]
        assert mine.macs >= part.macs // tp
        if name in ("FFN", "head"):
            kind = "two_bit" if name == "FFN" else "fp16"
            columns = config.hidden + 2 * config.hidden if name == "FFN" else config.hidden
            more = linear_bytes(kind, UNIT, max(columns, config.ffn)) * 3
            layers = config.layers if name == "FFN" else 1
            assert part.bytes // tp <= mine.bytes <= part.bytes // tp + layers * more
    # Norms and preparing are everyone's own.
    assert parts(share)["norms"] == parts(whole)["norms"]
    assert parts(share)["FFN"].prepared == parts(whole)["FFN"].prepared
    met = sum(each.barriers for each in share.work.parts)
    assert met == sum(each.barriers for each in whole.work.parts) + GATHERS * config.layers


def test_a_rank_has_whole_heads():
    """Of 5 heads of keys two ranks have 3 at the most; more ranks than heads have one each."""
    config = SIZES["2B4T"]
    for tp, queries, keys in ((2, 10, 3), (4, 5, 2), (5, 4, 1), (20, 1, 1), (40, 1, 1)):
        (stage,) = stages(config, "two_bit", Layout(tp), 128, 1, 1)
        part = parts(stage)["attention"]
        assert part.heads == config.layers * queries
        assert part.bytes == kv_cache_bytes(config, "fp16", 129) * keys // 5


@pytest.mark.parametrize("pp", [1, 2, 3, 5, 32])
def test_stages_have_all_layers_once(pp):
    """Alike in bytes, as far as whole layers and the head in the last one allow."""
    found = stages(CONFIG, "two_bit", Layout(1, pp), 128, 1, 1)
    assert sum(each.layers for each in found) == CONFIG.layers
    assert all(each.layers for each in found)
    assert [each.is_last for each in found] == [False] * (pp - 1) + [True]
    for name in ("macs", "barriers", "heads"):
        together = sum(getattr(part, name) for each in found for part in each.work.parts)
        whole = workload(CONFIG, "two_bit", "decode", 128).parts
        assert together == pytest.approx(sum(getattr(part, name) for part in whole), abs=pp)
    layer = (found[0].weights) / found[0].layers
    if pp < CONFIG.layers:
        assert max(each.weights for each in found) - min(each.weights for each in found) < 2 * layer


def test_memory_is_a_part_of_the_weights_and_of_the_cache():
    """Of four ranks of 70B within 2% of a quarter; the embedding stays in the file."""
    config = SIZES["70B"]
    weights = weight_bytes(config, "two_bit") - (not config.tied) * linear_bytes(
        "fp16", config.vocabulary, config.hidden
    )
    whole = weights + 8 * kv_cache_bytes(config, "fp16", 129)
    for layout in (Layout(4), Layout(2, 2), Layout(1, 4)):
        found = predict_ranks(config, MACHINE, FREE, layout, "two_bit", sequences=8)
        assert whole / 4 <= found.memory <= (1.02 if layout.pp == 1 else 1.1) * whole / 4


def test_latency_counts_each_collective():
    """Four a layer and that of the logits, and the command before a pass."""
    found = predict_ranks(CONFIG, MACHINE, LATE, Layout(4))
    assert found.seconds[LATENCY] == pytest.approx(2e-3 * (GATHERS * CONFIG.layers + 2))
    assert found.seconds[BANDWIDTH] < 1e-9


def test_bandwidth_counts_the_bytes_of_others():
    """Attention's output, o's, the inner vector and down's of every layer, and the logits."""
    found = predict_ranks(CONFIG, MACHINE, SLOW, Layout(4), sequences=3)
    elements = CONFIG.layers * (3 * CONFIG.hidden + CONFIG.ffn) + CONFIG.vocabulary
    assert found.seconds[BANDWIDTH] == pytest.approx(3 * 4 * elements * 3 / 4 / 1e7)


def test_a_pipeline_of_one_sequence_takes_all_stages_one_after_another():
    one, four = (predict_ranks(CONFIG, MACHINE, FREE, Layout(1, pp), "two_bit") for pp in (1, 4))
    assert four.seconds[SHARED] == pytest.approx(one.seconds[SHARED], rel=0.02)
    assert four.groups == 1


def test_stages_work_on_several_sequences_at_once():
    """As many groups as stages: the slowest one serves each."""
    found = predict_ranks(CONFIG, MACHINE, FREE, Layout(1, 4), "base3", sequences=4)
    assert found.groups == 4
    each = stages(CONFIG, "base3", Layout(1, 4), 128, 1, 4)
    slowest = max(
        math.fsum(part.seconds for part in timed(stage.work, MACHINE, MACHINE.threads))
        for stage in each
    )
    assert seconds(found) == pytest.approx(4 * slowest, rel=0.02)
    # Of more sequences each group has several.
    more = predict_ranks(CONFIG, MACHINE, FREE, Layout(1, 4), "base3", sequences=10)
    assert (more.groups, more.sequences) == (4, 10)


def test_messages_between_stages():
    """The hidden vector from each to the next, the logits back, and the command before."""
    found = predict_ranks(CONFIG, MACHINE, LATE, Layout(1, 4))
    assert found.seconds[LATENCY] == pytest.approx(1e-3 * (4 + 2))
    found = predict_ranks(CONFIG, MACHINE, SLOW, Layout(1, 4))
    elements = 3 * CONFIG.hidden + CONFIG.vocabulary
    assert found.seconds[BANDWIDTH] == pytest.approx(4 * elements / 1e7)


def test_the_fastest_layout_is_chosen_and_says_why():
    """Rows where messages are cheap, stages where they are dear."""
    near = best_layout(CONFIG, MACHINE, FREE, 4, "two_bit", sequences=4)
    assert near.layout == Layout(4)
    far = best_layout(CONFIG, MACHINE, Link("far", 0.1, 1e8), 4, "two_bit", sequences=4)
    assert far.layout == Layout(1, 4)
    for plan in (near, far):
        layouts = [Layout(4), Layout(2, 2), Layout(1, 4)]
        link = FREE if plan is near else Link("far", 0.1, 1e8)
        speeds = [
            predict_ranks(CONFIG, MACHINE, link, each, "two_bit", sequences=4).tokens_per_second
            for each in layouts
        ]
        assert plan.prediction.tokens_per_second == max(speeds)
        assert plan.reason.startswith(f"{plan.layout}: ")
        assert "\n" not in plan.reason
    assert "messages take" in far.reason
    assert best_layout(CONFIG, MACHINE, FREE, 1).reason.endswith("the only layout that fits")


def test_where_it_saturates():
    """The first number of ranks whose double is not worth it, and what it is held up by."""
    curve = [predict_ranks(CONFIG, MACHINE, LATE, Layout(2**power)) for power in range(7)]
    words = saturation(curve)
    at = int(words.split()[1])
    speeds = {each.layout.ranks: each.tokens_per_second for each in curve}
    assert speeds[2 * at] < 1.25 * speeds[at]
    assert all(speeds[2 * each] >= 1.25 * speeds[each] for each in speeds if each < at)
    assert "messages take" in words
    assert "link latency" in words
    assert saturation(curve[:1]) == "not up to 1 ranks"
    # What grows, though weights still take most of the time.
    one, two = (
        replace(curve[at], seconds={SHARED: shared, OWN: 0.1, LATENCY: late, BANDWIDTH: 0.0})
        for at, shared, late in ((0, 1.0, 0.0), (1, 0.5, 0.4))
    )
    assert saturation([one, two]).endswith("messages take 40% of its time, mostly the link latency")


def test_why_names_what_takes_most():
    found = predict_ranks(CONFIG, MACHINE, FREE, Layout(1, 4))
    assert why(found) == "1 sequence(s) keep no more than 1 of its stages busy"
    ample = {SHARED: 1.0, OWN: 3.0, LATENCY: 0.5, BANDWIDTH: 0.5}
    assert why(replace(found, seconds=ample)).endswith("has take 60% of its time")


def test_ranks_of_one_machine_share_it():
    """Its bandwidth, its last cache and its cores; two ranks of one thread are as two threads."""
    link = Link("local", 1e-12, 1e18, is_local=True)
    found = predict_ranks(CONFIG, MACHINE, link, Layout(2), "base3", threads=1)
    whole = predict(CONFIG, MACHINE, "base3", threads=2)
    assert found.tokens_per_second == pytest.approx(whole.tokens_per_second, rel=0.05)
    # Of two stages that a lone sequence goes through, one works at a time.
    alone, stages_ = (
        predict_ranks(CONFIG, MACHINE, link, Layout(1, pp), threads=1) for pp in (1, 2)
    )
    assert stages_.tokens_per_second == pytest.approx(alone.tokens_per_second, rel=0.02)
    half = shared_machine(MACHINE, 2, 1, 2)
    assert half.levels[-1].rate(1) == MACHINE.levels[-1].rate(2) / 2
    assert half.levels[1].capacity == MACHINE.levels[1].capacity / 2
    assert half.levels[0].capacity == MACHINE.levels[0].capacity
    with pytest.raises(ValueError, match="4 ranks over local: A machine has 6 cores") as caught:
        predict_ranks(CONFIG, replace(MACHINE, cores=MACHINE.cores), link, Layout(4), threads=2)
    assert "2 threads of each of 4 ranks" in str(caught.value)


@pytest.mark.parametrize(
    ("layout", "words"),
    [(Layout(1, 33), "pp=33: expected at most 32, the model's layers"),
     (Layout(600), "tp=600: expected at most 500, the 64s of rows")],
)  # fmt: skip
def test_more_ranks_than_there_is_work_for(layout, words):
    with pytest.raises(ValueError, match="expected at most") as caught:
        predict_ranks(CONFIG, MACHINE, FREE, layout)
    assert words in str(caught.value)


def test_a_rank_that_has_no_memory_for_its_part():
    small = replace(MACHINE, memory=1e9)
    with pytest.raises(ValueError, match=r"memory: a rank of tp=1 needs .* GB, has 1.0"):
        best_layout(CONFIG, small, FREE, 1)
    assert best_layout(CONFIG, small, FREE, 4).layout.ranks == 4


def test_layouts_as_they_are_written():
    assert parse_layout("tp=4,pp=2", 8) == Layout(4, 2)
    assert parse_layout("pp=2", 2) == Layout(1, 2)
    assert [str(each) for each in (Layout(), Layout(4), Layout(1, 2), Layout(4, 2))] == [
        "tp=1", "tp=4", "pp=2", "tp=4,pp=2",
    ]  # fmt: skip
    for text in ("tp=4", "tp=2,tp=4", "", "tp=8,", "8", "tp=-8", "tp=0,pp=8"):
        with pytest.raises(ValueError, match="expected tp=N,pp=N with 8 ranks in all"):
            parse_layout(text, 8)


def test_large_layouts_have_as_many_parameters_as_they_are_called():
    for size, expected in (("175B", 175e9), ("1T", 1e12)):
        config = large()[size]
        found = config.linear_weights + 2 * config.vocabulary * config.hidden
        assert found == pytest.approx(expected, rel=0.02)
        assert config.ffn % UNIT == 0


def test_shipped_machines_are_predicted():
    found = best_layout(SIZES["70B"], load("epyc-7v13"), LATE, 8, "two_bit")
    assert 0 < found.prediction.tokens_per_second < math.inf
