"""The benchmark of the kernels, on sizes that are small enough for a test, and on made-up times."""

import shutil
import subprocess

import numpy as np
import pyperf
import pytest

import ternops
from bench.core.errors import ResultsError
from bench.core.kernels import NO_PYTHON, OURS, Limit, Product, Timings, describe, load_cases
from bench.core.measure import Case, interleave
from bench.core.pyperf_files import fields_of, save_suite
from bench.engines import Engine, Unsupported
from bench.limits import levels
from bench.limits.peaks import PEAKS, Unit
from bench.pages.plots import roofline
from bench.suites.kernels import cases as kernel_cases
from bench.suites.kernels import command as kernels
from bench.suites.kernels import goals as kernel_goals
from bench.suites.kernels import sections as kernel_sections
from bench.suites.kernels.cases import Prepared
from bench.suites.kernels.sections import SECTIONS, Group, KernelOptions
from ternops.cost.probes import PROBES, Reader
from ternops.kernels.amx import SPARE_BYTES
from tests.helpers import cases, internals
from tests.helpers.processes import run_code


def limit(what, rate, group="g", threads=1, tier="avx512vbmi", how="somehow"):
    """A limit of so many bytes or multiply-accumulates a second."""
    case = Case("", lambda: None, 1, values=[1000 / rate] * 3)
    return describe(case, Limit("s", group, what, how, threads, 1000, tier))


def product(rate, section="s", group="g", engine=OURS, tokens=1, threads=1, tier="avx512vbmi",
            encoding="two_bit", size=(64, 256), **more):  # fmt: skip
    """A product of so many multiply-accumulates a second."""
    rows, columns = size
    if engine != OURS:
        encoding = ""
    what = Product(section, group, engine, tokens, rows, columns, threads, rows * columns // 4,
                   tier, encoding, **more)  # fmt: skip
    return describe(Case("", lambda: None, 1, values=[what.macs / rate] * 3), what)


def figures_of(made, tier="avx512vbmi"):
    """what -> (asked, seen, passed), seen rounded."""
    found = kernel_goals.goals(Timings(made), tier)
    return {each.what: (each.asked, round(each.seen, 6), each.passed) for each in found}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("peak", PEAKS)
def test_a_peak_computes_what_it_counts(peak, threads):
    """Ones times ones: the sum of all lanes is the number of multiply-accumulates."""
    unit = Unit()
    unit._source[:] = 1
    unit._scratch[:] = 0
    unit.run(peak, threads, rounds=3)
    dtype = np.float32 if peak.what == "multiply-add" else np.int32
    sums = unit._scratch[: threads * SPARE_BYTES].view(dtype).reshape(threads, -1)
    assert sums.sum(axis=1).tolist() == [3 * peak.macs] * threads


@pytest.mark.timeout(150)
def test_barriers_come_to_an_end():
    """On three threads; a process of its own, which would be ended, where one waits for ever."""
    code = "from bench.limits.peaks import BARRIER, Unit; Unit().run(BARRIER, 3, rounds=5)"
    run_code(code, timeout=120)


@pytest.mark.parametrize("dtype", ["int8", "float32"])
@pytest.mark.parametrize("encoding", kernel_sections.ENCODINGS)
def test_kernels_alone_compute_the_product(encoding, dtype):
    """The same bits as `ternops.matmul`, however often, with or without preparing the tokens."""
    matrix = ternops.pack(cases.trits(70, 400, encoding=encoding), 0.5, encoding)
    x = kernel_cases.tokens_of(1, 400, dtype)
    if dtype == "int8":
        matrix = matrix.unscaled
    for alone in (False, True):
        prepared = Prepared(matrix, x, threads=2)
        prepared.result()[:] = 0
        prepared.run(alone, times=3)
        assert cases.same_bits(prepared.result(), ternops.matmul(x, matrix.T))


def test_a_probe_may_read_again_and_again():
    """The sum that it leaves behind is that of one time."""
    assert internals.sum_read(Reader(4160), PROBES[0], threads=1, times=3) == 4160 % 256


def test_what_is_done_before_and_at_the_end():
    """`before` precedes every run, `close` comes once, when the case is released."""
    done = []
    case = Case("a", lambda: done.append("r"), before=lambda: done.append("b"))
    case.close = lambda: done.append("c")
    interleave([case], rounds=2)
    case.release()
    case.release()
    assert "".join(done) == "brbrbrc"


def test_share_of_the_lowest_roof():
    """Bytes count by what they are good for, and only limits of the same group and threads."""
    made = [
        product(300, level="DRAM", peak="dot"), limit("DRAM", 100), limit("dot", 1000),
        limit("DRAM", 10, group="other"), limit("DRAM", 10, threads=2),
        limit("DRAM", 90, how="slowly"),
        limit("DRAM", 10, tier="avx2"),
    ]  # fmt: skip
    results = Timings(made)
    (only,) = results.products
    assert results.roofs(only) == pytest.approx({"DRAM": 400, "dot": 1000})
    assert results.share(only) == pytest.approx(0.75)
    assert len(results.without_slower_limits()) == len(made) - 1


def test_a_share_is_of_the_same_round():
    """A machine that slows down between rounds slows down for both: the share stays what it is."""
    made = [product(300, level="DRAM", peak=""), limit("DRAM", 100)]
    times = np.array([1.0, 1.0, 4.0, 9.0, 9.0])
    for case in made:
        case.values = list(case.values[0] * times)
    made[1].values[:2] = [case * 2 for case in made[1].values[:2]]
    results = Timings(made)
    (only,) = results.products
    assert results.share(only) == pytest.approx(0.75)
    assert results.shares(only) == pytest.approx({"DRAM": 0.75})


@pytest.mark.parametrize(("rate", "failures"), [(1030, 1), (1010, 0)])
def test_a_kernel_beyond_its_limit_fails_the_run(rate, failures, monkeypatch, tmp_path, capsys):
    """A share above 102% says that the probe missed the limit."""
    made = [product(rate, peak="dot"), limit("dot", 1000)]
    assert len(kernel_goals.beyond(Timings(made))) == failures
    monkeypatch.setattr(
        kernels, "SECTIONS", {"made-up": lambda options: [Group("g", 0, lambda: made, 0)]}
    )
    monkeypatch.setitem(SECTIONS, "made-up", lambda options: [])
    assert kernels.main(["--no-peers", "--output", str(tmp_path)]) == failures
    assert ("the probe missed it" in capsys.readouterr().out) == bool(failures)


def test_asked_and_seen_of_one_token(monkeypatch):
    """The read bandwidth is what GEMV is measured by, 100 bytes a second being 400 here."""
    monkeypatch.setattr(kernel_goals, "_OF_READING", {"two_bit": 0.97, "base3": 0.95})
    made = [limit("DRAM", 100), limit("DRAM", 100, tier="avx2"), limit("dot", 500)]
    for tier in ("avx512vbmi", "avx2"):
        for encoding in ("two_bit", "base3", "tl1"):
            made.append(product(364, "gemv-dram", tier=tier, encoding=encoding, level="DRAM"))
    made += [
        product(300, "gemv-cache", peak="dot", encoding="two_bit"),
        product(150, "gemv-cache", peak="dot", encoding="base3"),
    ]
    found = kernel_goals.goals(Timings(made), "avx512vbmi")
    assert [(each.section, each.what.split(",")[0].split(":")[0], each.asked, round(each.seen, 6),
             each.words[2]) for each in found] == [
        ("gemv-dram", "two_bit", 0.97, 0.91, "MISSED"),
        ("gemv-dram", "base3", 0.95, 0.91, "MISSED"),
        ("gemv-dram", "tl1", 0.60, 0.91, "pass"),
        ("gemv-cache", "two_bit", 0.50, 0.6, "pass"),
        ("gemv-cache", "base3", 0.60, 0.5, "MISSED"),
        ("avx2", "two_bit", 0.90, 0.91, "pass"),
        ("avx2", "tl1", 0.60, 0.91, "pass"),
    ]  # fmt: skip


def test_asked_and_seen_of_eight_tokens():
    """Columns a second over those of one token, and what the limits allow."""
    made = [
        limit("DRAM", 100), limit("dot", 1000),
        product(400, "batch", level="DRAM", peak="dot"),
        product(900, "batch", tokens=8, level="DRAM", peak="dot"),
    ]  # fmt: skip
    (figure,) = kernel_goals.goals(Timings(made), "avx512vbmi")
    assert figure.seen == pytest.approx(2.25)
    assert figure.words == (">= 4x", "2.25x", "MISSED")
    assert figure.remark == "the limits allow 2.5x; 90% of that of 8"


@pytest.mark.parametrize(
    ("tier", "peak", "expected"),
    [
        ("avx512vbmi", "dot", [(0.75, 0.7, False)]),
        ("amx", "tile", [(0.47, 0.7, True), (4, 7.0, True)]),
        ("avx2", "dot", []),
    ],
)
def test_asked_and_seen_of_many_tokens(tier, peak, expected):
    """The worse dtype counts; AMX is also compared with what another process did without it."""
    made = [limit(peak, 1000, tier=tier)]
    for dtype, rate in (("int8", 800), ("float32", 700)):
        made.append(product(rate, "gemm", tier=tier, tokens=512, peak=peak, input=dtype))
        if tier == "amx":
            made.append(product(100, "gemm", tokens=512, peak="dot", input=dtype))
    assert list(figures_of(made, tier).values()) == expected


@pytest.mark.parametrize(("tier", "asked"), [("avx512vbmi", 0.7), ("amx", 0.45), ("avx2", None)])
@pytest.mark.parametrize("family", ["zen", "zen4", ""])
def test_asked_and_seen_of_scales_a_group(monkeypatch, tier, asked, family):
    """One token's bytes a second, and many tokens' products, over those without groups."""
    asked_of_one = {"two_bit": 0.9, "base3": 0.85} if family else {"two_bit": 0.8}
    assert kernel_goals.of_ungrouped(family) == asked_of_one
    monkeypatch.setattr(kernel_goals, "FAMILY", family)
    made = [
        product(rate, "grouped", tier=tier, encoding=encoding, tokens=tokens)
        for encoding, rate in (
            ("two_bit", 100), ("two_bit/64", 75), ("base3", 50), ("base3/128", 40),
        )
        for tokens in (1, 512)
    ]  # fmt: skip
    wide = product(88, "grouped", tier=tier, encoding="two_bit/128")
    what = Product(**{**fields_of(Product, wide.metadata, wide.name), "bytes": 64 * 256 // 4 + 512})
    made.append(describe(wide, what))
    expected = {
        "two_bit/64, 1 thread: of two_bit's bandwidth": (0.9 if family else 0.8, 0.75, False),
        "two_bit/128, 1 thread: of two_bit's bandwidth": (0.9 if family else 0.8, 0.99, True),
        "base3/128, 1 thread: of base3's bandwidth": (0.85, 0.8, False),
        "base3/128, 1 thread, 512 tokens: of base3's rate": (asked, 0.8, True),
    }
    if not family:
        del expected["base3/128, 1 thread: of base3's bandwidth"]
    assert figures_of(made, tier) == {k: v for k, v in expected.items() if v[0]}


def test_asked_and_seen_of_every_number_of_bits():
    """Many tokens' products over those of ternary weights; of eight bits nothing is asked."""
    rates = {
        "two_bit/128": 100, "two_bit/128 4 levels": 90, "nibble/128": 84, "three_bit/128": 71,
        "one_bit/128": 79, "eight_bit/128": 1,
    }  # fmt: skip
    made = [product(rate, "low-bit", encoding=name, tokens=512) for name, rate in rates.items()]
    assert figures_of(made) == {
        f"{name}, 1 thread, 512 tokens: of two_bit's rate": (asked, rates[name] / 100, met)
        for name, asked, met in (
            ("two_bit/128 4 levels", 0.85, True), ("nibble/128", 0.85, False),
            ("three_bit/128", 0.70, True), ("one_bit/128", 0.80, False),
        )
    }  # fmt: skip


@pytest.mark.parametrize(("tier", "asked"), [("avx512vbmi", 1.3), ("amx", 6)])
def test_asked_and_seen_beside_litespark(tier, asked):
    """One token, and the worst of the shapes with many; 32 tokens were not asked for."""
    made = []
    for tokens, rate in ((1, 600), (32, 1), (128, 200), (512, 140)):
        group = f"published {tokens}"
        made += [
            product(rate, "published", group, tokens=tokens, tier=tier),
            product(100, "published", group, engine="litespark", tokens=tokens, tier=tier),
        ]
    assert figures_of(made, tier) == {
        "1 token: over litespark": (5.0, 6.0, True),
        "128 tokens and more, at worst: over litespark": (asked, 1.4, asked == 1.3),
    }


def test_asked_and_seen_of_the_overhead():
    """At most so much; the time of the kernels alone is taken off, round by round."""
    whole, alone = product(1, "overhead"), product(1, "overhead", how=NO_PYTHON)
    whole.values, alone.values = [14e-6, 26e-6, 15e-6], [10e-6, 20e-6, 10e-6]
    assert figures_of([whole, alone]) == {
        "float32: time outside of the kernels": (5e-6, 5e-6, True)
    }
    whole.values[0] = 15.1e-6
    assert [each[2] for each in figures_of([whole, alone]).values()] == [False]


def made_up(tier, peaks):
    """Cases of a machine of two threads."""
    made = []
    for threads in (1, 2):
        made += [
            limit(what, threads * rate * 1e9, threads=threads, tier=tier)
            for what, rate in {"L2": 100, "last level": 22, "DRAM": 10, **peaks}.items()
        ]
        for encoding, share in (("two_bit", 0.97), ("base3", 0.95), ("tl1", 0.8), ("tl2", 0.7)):
            rate = share * threads * 40e9
            made.append(product(rate, f"gemv {threads}", threads=threads, tier=tier,
                                encoding=encoding, level="DRAM"))  # fmt: skip
        for tokens in (8, 128, 512):
            peak = "tile" if "tile" in peaks and tokens > 8 else "dot"
            rate = 0.8 * threads * peaks[peak] * 1e9
            made.append(product(rate, f"many {threads}", tokens=tokens, threads=threads, tier=tier))
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tier", "peaks"), [("avx512vbmi", {"dot": 250}), ("amx", {"dot": 250, "tile": 2100})]
)
def test_the_roofline_is_drawn_from_the_suite_alone(tier, peaks, tmp_path):
    """A picture of pixels and one of lines; the same results give the same bytes."""
    made = [*made_up(tier, peaks), product(1e9, "gemv-dram", tier="generic")]
    for i, case in enumerate(made):
        case.name += f" {i}"
    save_suite(tmp_path / "kernels.json", made)
    paths = roofline.draw(tmp_path)
    assert [path.name for path in paths] == ["roofline.png", "roofline.svg"]
    first = [path.read_bytes() for path in paths]
    assert first[0].startswith(b"\x89PNG")
    assert b"</svg>" in first[1]
    assert roofline.main([str(tmp_path)]) == 0
    assert [path.read_bytes() for path in paths] == first


def test_a_roofline_that_cannot_be_drawn_is_one_line(tmp_path, capsys):
    """No file, no suite, no limit, no kernel."""
    assert roofline.main([str(tmp_path)]) == 2
    (tmp_path / "kernels.json").write_text("{}")
    assert roofline.main([str(tmp_path)]) == 2
    for made, words in ((product(1), "no limit"), (limit("dot", 1), "no kernel")):
        save_suite(tmp_path / "kernels.json", [made])
        with pytest.raises(ResultsError, match=words):
            roofline.draw(tmp_path)
    assert len(capsys.readouterr().err.splitlines()) == 2


class FakeProduct:
    """A peer's product that keeps count."""

    nbytes = 64

    def __init__(self):
        self.calls, self.closed = 0, False

    def __call__(self):
        self.calls += 1

    def close(self):
        self.closed = True


def test_peers_take_turns_and_are_closed(monkeypatch):
    """Their threads are let settle before each time; one that cannot do a shape leaves a note."""
    fake, settled = FakeProduct(), []

    def refuse(trits, x, threads):
        raise Unsupported("needs another K")

    engines = [Engine("fake", "1.0", "a remark", lambda trits, x, threads: fake),
               Engine("other", "1.0", "", refuse)]  # fmt: skip
    monkeypatch.setattr(kernel_cases, "settle", settled.append)
    options = KernelOptions([1], quick=True, engines=engines)
    monkeypatch.setattr(kernel_sections, "_PEERS_QUICK", ((64,), (1,)))
    (group,) = SECTIONS["peers"](options)
    made = group.build()
    assert options.notes == ["other, peers [1, 64] x [64, 64]: needs another K"]
    interleave(made, rounds=1)
    assert len(settled) == 4  # ours and the fake one, in two rounds
    for case in made:
        case.release()
    assert fake.closed
    results = Timings(made)
    assert [each.engine for each in results.products] == [OURS, "fake"]
    assert made[-1].metadata["ternops_remark"] == "a remark"


def test_another_tier_measures_in_a_process_of_its_own(monkeypatch, tmp_path):
    """Its cases come back under names that carry the tier; one that fails fails the run."""
    save_suite(tmp_path / "kernels.json", [product(5, tier="avx2")])

    def child(command, env, **others):
        assert env["TERNOPS_ISA"] == "avx2"
        assert command[command.index("--threads") :] == ["--threads", "1", "2", "--quick"]
        shutil.copy(tmp_path / "kernels.json", command[command.index("--output") + 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    options = KernelOptions([1, 2], quick=True)
    monkeypatch.setattr(kernel_sections.subprocess, "run", child)
    (case,) = kernel_sections._in_tier(options, "avx2", "gemv-dram")
    assert case.name == "g, two_bit, 1 token, float32, 1 thread, avx2"
    assert case.benchmark().get_name() == case.name
    (found,) = Timings([case]).products
    assert found.tier == "avx2"

    def broken(command, **others):
        return subprocess.CompletedProcess(command, 1, "", "Traceback\nImportError: no numba")

    monkeypatch.setattr(kernel_sections.subprocess, "run", broken)
    assert kernel_sections._in_tier(options, "avx2", "gemv-dram") == []
    assert options.failures == ["gemv-dram with TERNOPS_ISA=avx2: ImportError: no numba"]


def test_a_section_that_needs_too_much_memory_is_left_out(monkeypatch, tmp_path, capsys):
    """It says what is missing, before anything is allocated."""
    monkeypatch.setattr(levels, "DRAM_BYTES", 1 << 60)
    arguments = ["--only", "batch", "--output", str(tmp_path), "--threads", "1"]
    assert kernels.main(arguments) == 1
    assert "GB are free" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--only", "nonsense"], "nonsense"), (["--threads", "0"], "threads=0")],
)
def test_wrong_arguments_are_one_line(arguments, words, capsys):
    """Nothing is measured; the line names the argument."""
    with pytest.raises(SystemExit) as stop:
        kernels.main(arguments)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_from_end_to_end(monkeypatch, tmp_path, capsys):
    """Sections that measure, their tables, the suite and the pictures."""
    monkeypatch.setattr(levels, "DRAM_BYTES", 1 << 20)
    monkeypatch.setattr(levels, "_ROUNDS", 10)
    monkeypatch.setattr(levels, "_READ_AT_ONCE", 1)
    monkeypatch.setattr(kernel_cases, "_BATCH", 0.0)
    monkeypatch.setattr(kernel_sections, "_GEMM", 256)
    monkeypatch.setattr(kernel_sections, "HAS_TILES", False)
    # At this size everything lies in cache, where a probe says nothing about the kernels.
    monkeypatch.setattr(kernel_goals, "MAX_SHARE", float("inf"))
    sections = ["limits", "gemv-dram", "gemv-cache", "batch", "gemm", "grouped", "low-bit"]
    sections += ["overhead"]
    arguments = ["--quick", "--no-peers", "--threads", "1", "--output", str(tmp_path)]
    assert kernels.main([*arguments, "--only", *sections]) == 0
    names = {"kernels.json", "roofline.png", "roofline.svg"}
    assert {path.name for path in tmp_path.iterdir()} == names
    printed = capsys.readouterr().out
    assert "left out" not in printed
    for section in sections:
        assert f"{section}: {SECTIONS[section].__doc__}"[:30] in printed
    results = Timings(load_cases(tmp_path / "kernels.json"))
    assert {each.section for each in results.products} == set(sections[1:])
    encodings = {each.encoding for each in results.find(section="gemv-dram")}
    assert encodings == set(kernel_sections.ENCODINGS)
    groups = {each.encoding for each in results.find(section="grouped")}
    assert groups == {"two_bit", "two_bit/128", "two_bit/64", "base3", "base3/128"}
    kinds = {each.encoding for each in results.find(section="low-bit")}
    names = ("one_bit", "base3", "two_bit", "three_bit", "nibble", "eight_bit")
    others = {"two_bit/128 4 levels", "e4m3", "e5m2"}
    assert kinds == {*(f"{name}/128" for name in names), *others}
    limits = {each.what for each in results.limits if each.section == "limits"}
    assert limits >= {"DRAM", "L2", "dot"}
    suite = pyperf.BenchmarkSuite.load(str(tmp_path / "kernels.json"))
    assert all(len(each.get_values()) >= 3 for each in suite)
