"""Predictions on a made-up machine, checked by hand."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from ternops.cost import load, predict
from ternops.cost.hardware import Cores, Curve, Fixed, Hardware, Kernel, Level
from ternops.cost.latency import MAX_REACH, reach_of, residence, together
from ternops.cost.layouts import SIZES
from ternops.cost.profile import shipped
from ternops.cost.workload import weight_bytes, workload
from ternops.decoder.cache import kv_cache_bytes

CONFIG = SIZES["700M"]
MACHINE = Hardware(
    "A machine", "x86", ("avx2",), 4e9, (Cores("usable", 4, 2e9),),
    (
        Level("L3", Curve((1,), (400e9,)), 8 * 2**20),
        Level("DRAM", Curve((1, 2), (20e9, 40e9)), energy=100e-12),
    ),
    barrier=Curve((1,), (2e-6,)), idle=5.0, core=10.0,
    kernels={"base3": Kernel(gemv=Curve((1,), (50.0,)), gemm=Curve((1,), (100.0,)))},
)  # fmt: skip


def test_a_token_takes_as_long_as_its_parts():
    """Two threads: each part its products beside its bytes, and two microseconds a barrier."""
    found = predict(CONFIG, MACHINE, "base3", 2)
    seconds = 0.0
    for part in workload(CONFIG, "base3", "decode", 128).parts:
        compute = part.macs / (50 * 2e9 * 2) if part.kernel == "base3" else 0.0
        seconds += together(compute, part.bytes / 40e9) + 2e-6 * part.barriers
    assert found.tokens_per_second == pytest.approx(1 / seconds)
    assert found.ms_per_token == pytest.approx(1e3 * seconds)
    # The profile has no rate of attention and of the float16 head.
    assert found.unknown == ("attention", "fp16")


def test_what_bounds_it():
    """A slow kernel computes, a fast one waits for the memory."""
    assert predict(CONFIG, MACHINE, "base3", 2).bound == "memory"
    slow = replace(MACHINE, kernels={"base3": Kernel(gemv=Curve((1,), (1.0,)))})
    assert predict(CONFIG, slow, "base3", 2).bound == "compute"
    assert predict(CONFIG, slow, "base3", 2).parts["head"].bound == "memory"


def test_one_thread_needs_no_barrier():
    """No barriers."""
    parts = predict(CONFIG, MACHINE, "base3", 1).parts.values()
    assert {part.barriers for part in parts} == {0.0}


@pytest.mark.parametrize(
    ("compute", "memory", "seconds"),
    [(0, 0, 0), (3, 0, 3), (1, 1, 1.1487), (2, 1, 2.01235), (1, 9, 9.00003)],
)
def test_computing_beside_reading(compute, memory, seconds):
    """The larger alone where the other is small; 15% more than either where they are alike."""
    assert together(compute, memory) == pytest.approx(seconds, rel=1e-5)
    assert together(compute, memory) == together(memory, compute)
    assert max(compute, memory) <= together(compute, memory) <= compute + memory


def test_a_kernel_reads_at_its_own_pace():
    """At a part of a level's bandwidth, and the reach is what a measurement of that gives back."""
    kernel = Kernel(gemv=Curve((1,), (50.0,)), reach={"DRAM": Curve((1,), (0.5,))})
    slow = replace(MACHINE, kernels={"base3": kernel})
    before, after = (predict(CONFIG, each, "base3", 1).parts for each in (MACHINE, slow))
    for name in ("FFN", "projections"):
        part = after[name]
        assert part.memory == pytest.approx(2 * before[name].memory)
        assert part.product == pytest.approx(together(part.compute, part.memory))
        assert reach_of(before[name].memory, part.compute, part.product) == pytest.approx(0.5)
    assert after["head"] == before["head"]
    # From a cache it reads as fast as any.
    cached = replace(slow, levels=(replace(slow.levels[0], capacity=2.0**40), slow.levels[1]))
    parts = predict(CONFIG, cached, "base3", 1).parts
    assert parts["FFN"].memory == pytest.approx(parts["FFN"].part.bytes / 400e9)


def test_what_computes_as_long_alone_tells_no_reach():
    """It is not below what can be measured, nor beyond all bounds."""
    assert reach_of(1.0, 3.0, 3.0) == reach_of(1.0, 4.0, 3.0) == MAX_REACH
    assert reach_of(9.0, 0.0, 3.0) == MAX_REACH
    assert reach_of(1.5, 0.0, 3.0) == 0.5


def test_rows_take_time_of_one_token():
    """So many cycles each on one of the threads; a prompt's are in its own rate."""
    kernel = Kernel(gemv=Curve((1,), (50.0,)), gemm=Curve((1,), (100.0,)))
    rows = replace(kernel, row=Curve((1, 2), (5.0, 8.0)))
    machines = [replace(MACHINE, kernels={"base3": each}) for each in (kernel, rows)]
    plain, more = (predict(CONFIG, each, "base3", 2).parts["FFN"] for each in machines)
    count = CONFIG.layers * (2 * CONFIG.ffn + CONFIG.hidden)
    assert more.compute - plain.compute == pytest.approx(count * 8 / (2 * 2e9))
    plain, more = (predict(CONFIG, each, "base3", 2, "prefill", 64) for each in machines)
    assert plain == replace(more, work=plain.work)


def test_what_a_token_costs_besides():
    """Of the level where the data lie: once, each layer, each head."""
    costs = [Curve((1, 2), (each, 2 * each)) for each in (1e-4, 1e-5, 1e-6)]
    l3, dram = MACHINE.levels
    machine = replace(
        MACHINE, levels=(replace(l3, fixed=Fixed()), replace(dram, fixed=Fixed(*costs)))
    )
    before, after = (predict(CONFIG, each, "base3", 2) for each in (MACHINE, machine))
    added = 2 * (1e-4 + CONFIG.layers * (1e-5 + CONFIG.heads * 1e-6))
    assert after.ms_per_token - before.ms_per_token == pytest.approx(1e3 * added)
    assert after.parts["attention"].fixed == pytest.approx(2e-6 * CONFIG.layers * CONFIG.heads)
    assert after.parts["attention"].bound == "fixed"
    cached = replace(
        machine, levels=(replace(machine.levels[0], capacity=2.0**40), machine.levels[1])
    )
    assert {part.fixed for part in predict(CONFIG, cached, "base3", 2).parts.values()} == {0.0}


def test_neighbours_drive_out_what_is_read_slowly():
    """A cache has the same bytes or not, by how much comes into it in the time of a token."""
    l3, dram = MACHINE.levels
    level = replace(l3, capacity=400e6, bandwidth=Curve((1,), (80e9,)), refill=40e9)
    machine = replace(MACHINE, levels=(level, dram))
    fast, slow = (
        predict(
            CONFIG,
            replace(machine, kernels={"base3": Kernel(gemv=Curve((1,), (rate,)))}),
            threads=1,
        )
        for rate in (500.0, 5.0)
    )
    assert slow.parts["FFN"].bytes.keys() == {"DRAM"}
    assert fast.parts["FFN"].bytes["L3"] > 0
    # A pass takes as long as it takes with what the pass before left there.
    shares = residence(machine, fast.work.bytes, 1, fast.ms_per_token / 1e3)
    found = fast.parts["FFN"]
    assert found.bytes["L3"] == pytest.approx(shares["L3"] * found.part.bytes, rel=1e-6)


def test_an_edge_may_be_sharp():
    """Within a factor of 1.44 instead of 4 around the room."""
    sharp = replace(MACHINE, levels=(replace(MACHINE.levels[0], edge=1.44), MACHINE.levels[1]))
    room = 8 * 2**20
    shares = [residence(sharp, factor * room, 2)["L3"] for factor in (0.83, 1, 1.2, 1.3)]
    assert shares == pytest.approx([1, 0.5, 0, 0], abs=1e-9)


def test_preparing_one_token_is_done_by_every_thread_and_many_are_shared():
    """The same time on one thread and two; of a prompt half."""
    machine = replace(MACHINE, kernels={"base3": Kernel(prepare=Curve((1,), (0.25,)))})

    def prepare(threads, phase):
        return predict(CONFIG, machine, "base3", threads, phase).parts["FFN"].prepare

    columns = CONFIG.layers * (CONFIG.hidden + CONFIG.ffn)
    assert prepare(1, "decode") == prepare(2, "decode") == pytest.approx(columns / 0.25 / 2e9)
    assert prepare(2, "prefill") == pytest.approx(prepare(1, "prefill") / 2)


def test_a_working_set_moves_out_of_a_cache_by_and_by():
    """Half of its room: all inside; twice: none; its own size: half of it."""
    room = 8 * 2**20
    shares = [residence(MACHINE, factor * room, 2)["L3"] for factor in (0.25, 0.5, 1, 2, 4)]
    assert shares == pytest.approx([1, 1, 0.5, 0, 0])
    for size in (1e3, 1e6, 9e6, 1e9):
        assert sum(residence(MACHINE, size, 2).values()) == pytest.approx(1)
    last = math.inf
    for size in range(2**20, 2**25, 2**18):
        share = residence(MACHINE, size, 1)["L3"]
        assert share <= last
        last = share


def test_where_the_joules_go():
    """Bytes, busy cores and time; all terms together are the whole."""
    found = predict(CONFIG, MACHINE, "base3", 2)
    seconds = found.ms_per_token / 1e3
    busy = found.terms["busy cores"] + found.terms["arithmetic"]
    assert busy == pytest.approx(2 * 10 * seconds)
    assert found.terms["idle"] == pytest.approx(5 * seconds)
    assert found.terms["DRAM"] == pytest.approx(100e-12 * found.work.bytes)
    parts = {part.name: part for part in found.work.parts}
    ternary = sum(parts[name].macs for name in ("projections", "FFN"))
    dense = sum(parts[name].macs for name in ("attention", "head"))
    assert found.terms["arithmetic"] == pytest.approx((0.007 * ternary + 0.5 * dense) * 1e-12)
    assert found.joules_per_token == pytest.approx(sum(found.terms.values()))
    unpowered = replace(MACHINE, core=math.nan)
    assert math.isnan(predict(CONFIG, unpowered, "base3", 2).joules_per_token)


def test_prefill_computes_where_decoding_reads():
    """A prompt of 512 takes far less a token, and many-token kernels' rates."""
    decode, prefill = (predict(CONFIG, MACHINE, "base3", 2, each, 512) for each in
                       ("decode", "prefill"))  # fmt: skip
    assert prefill.tokens_per_second > 3 * decode.tokens_per_second
    assert prefill.parts["FFN"].bound == "compute"
    assert prefill.work.tokens == 512
    part = prefill.parts["FFN"]
    assert part.compute == pytest.approx(part.part.macs / (100 * 2e9 * 2))


def test_a_batch_shares_the_weights():
    """Eight sequences: more tokens a second, more time a pass."""
    one, eight = (predict(CONFIG, MACHINE, "base3", 2, batch=each) for each in (1, 8))
    assert one.tokens_per_second < eight.tokens_per_second < 8 * one.tokens_per_second


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"encoding": "q4_0"}, "encoding='q4_0': expected fp16 or "),
        ({"threads": 5}, "threads=5: expected 1 to 4, the cores of A machine"),
        ({"threads": 0}, "threads=0: expected 1 to 4"),
        ({"threads": True}, "threads=True"),
        ({"phase": "train"}, "phase='train': expected decode or prefill"),
        ({"context": 0}, "context=0: expected 1 to 2047, the model's"),
        ({"context": 2048}, "context=2048: expected 1 to 2047"),
        ({"context": 2049, "phase": "prefill"}, "context=2049: expected 1 to 2048"),
        ({"batch": 0}, "batch=0: expected 1 to"),
        ({"context": 1.5}, "context=1.5"),
        ({"batch": 10**30}, "batch=10{9,}.*: expected 1 to 65536$"),
        ({"encoding": np.array(["base3", "tl1"])}, "encoding=array.*: expected fp16 or"),
    ],
)
def test_a_bad_argument_is_one_line(more, words):
    """The argument, its value, what was expected."""
    with pytest.raises(ValueError, match=words) as found:
        predict(CONFIG, MACHINE, **more)
    assert "\n" not in str(found.value)


def test_a_model_larger_than_the_memory():
    """Needs so much, has so much; the cache counts too."""
    with pytest.raises(ValueError, match=r"A machine: memory: the model needs 14\.1 GB, has 4"):
        predict(SIZES["7B"], MACHINE, "fp16")
    exact = weight_bytes(CONFIG, "base3") + kv_cache_bytes(CONFIG, "fp16", 101)
    predict(CONFIG, replace(MACHINE, memory=exact), "base3", context=100)
    with pytest.raises(ValueError, match="memory"):
        predict(CONFIG, replace(MACHINE, memory=exact - 1), "base3", context=100)


@pytest.mark.parametrize("name", ["generic", "m2-ultra", "epyc-7v13"])
def test_fewer_bytes_are_faster_on_every_machine(name):
    """Base3 before two bits before float16, when the memory is what counts."""
    machine = replace(load(name), kernels={})
    speeds = [
        predict(CONFIG, machine, each).tokens_per_second for each in ("fp16", "two_bit", "base3")
    ]
    assert speeds == sorted(speeds)


@pytest.mark.parametrize(
    ("config", "hardware", "words"),
    [
        (None, MACHINE, "config=None: expected a Config"),
        ("7B", MACHINE, "config='7B': expected a Config"),
        (CONFIG, "generic", "hardware='generic': expected a Hardware"),
    ],
)
def test_other_types_are_refused(config, hardware, words):
    """By the argument's name."""
    with pytest.raises(TypeError, match=words):
        predict(config, hardware)


def test_integers_of_numpy_are_taken():
    """And reckoned with exactly: an int32 would overflow."""
    found = predict(CONFIG, MACHINE, "base3", np.int64(2), context=np.int16(100), batch=np.int32(9))
    assert found == predict(CONFIG, MACHINE, "base3", 2, context=100, batch=9)


@pytest.mark.parametrize("bandwidth", [math.inf, math.nan, 1e-310])
def test_no_figure_is_made_of_a_machine_that_cannot_be(bandwidth):
    """Nothing is infinitely fast, or slow."""
    level = Level("DRAM", Curve((1,), (bandwidth,)))
    machine = replace(MACHINE, levels=(level,), kernels={})
    with pytest.raises(ValueError, match=r"A machine: .* expected a finite time"):
        predict(CONFIG, machine, "base3", 1)


@pytest.mark.parametrize("name", list(shipped()))
@pytest.mark.parametrize("kind", ["fp16", "base3"])
def test_more_of_the_machine_is_never_slower(name, kind):
    """Of bandwidth at any level; of threads, but for their barriers and slower cores."""
    machine = load(name)
    speed = predict(CONFIG, machine, kind).tokens_per_second
    for number, level in enumerate(machine.levels):
        doubled = replace(level.bandwidth, values=tuple(2 * v for v in level.bandwidth.values))
        levels = list(machine.levels)
        levels[number] = replace(level, bandwidth=doubled)
        assert predict(CONFIG, replace(machine, levels=tuple(levels)), kind).tokens_per_second >= (
            speed * (1 - 1e-12)
        )
    alike = replace(
        machine, barrier=Curve((1,), (0.0,)), cores=(Cores("alike", machine.threads, 2e9),)
    )
    speeds = [
        predict(CONFIG, alike, kind, threads).tokens_per_second
        for threads in range(1, machine.threads + 1)
    ]
    assert all(more >= fewer * (1 - 1e-12) for fewer, more in pairwise(speeds))


@pytest.mark.parametrize("name", list(shipped()))
def test_more_context_takes_longer_and_a_prompt_less_a_token(name):
    """Of time a pass; every term of the energy is there and none below 0."""
    last = {"decode": 0.0, "prefill": 0.0}
    for context in (1, 2, 100, 511, 512, 513, 2047):
        found = {phase: predict(CONFIG, load(name), phase=phase, context=context) for phase in last}
        for phase, each in found.items():
            seconds = each.work.tokens / each.tokens_per_second
            assert seconds > last[phase]
            last[phase] = seconds
            assert min(each.terms.values(), default=0.0) >= 0
        assert found["prefill"].tokens_per_second >= found["decode"].tokens_per_second


def test_the_last_tokens_head_is_that_of_one_token():
    """However long the prompt: one token's rate, and every thread prepares it for itself."""
    kernel = Kernel(gemv=Curve((1,), (10.0,)), gemm=Curve((1,), (80.0,)))
    machine = replace(MACHINE, kernels={"fp16": kernel})
    head = predict(CONFIG, machine, "base3", 2, "prefill", 600).parts["head"]
    assert head.compute == pytest.approx(head.part.macs / (10 * 2e9 * 2))


def test_two_tokens_take_longer_than_one():
    """Computing beside reading is there in a pass of few tokens too."""
    kernel = Kernel(gemv=Curve((1,), (50.0,)), gemm=Curve((1,), (60.0,)))
    machine = replace(MACHINE, kernels={"base3": kernel})
    times = [
        predict(CONFIG, machine, "base3", 2, "prefill", count).parts["FFN"].seconds
        for count in (1, 2, 8, 64)
    ]
    assert times == sorted(times)
