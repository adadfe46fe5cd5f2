"""ARM without ARM: the kernels compiled for its cores here, and the choice of a tier."""

from __future__ import annotations

import ctypes
import functools
import json
import re
import types

import llvmlite.binding as llvm
import pytest

from bench.arm import loops, retarget
from ternops.isa import detect
from ternops.simd import host, hwcap
from tests.arm import results
from tests.helpers import processes

#: A core, and what is compiled for it in `make test`; the rest is left to `make test-arm`.
FIRST, SOME = "neoverse-n1", ("gemv_two_bit", "gemv_base3", "gemm_two_bit")
CORES = pytest.mark.parametrize(
    ("core", "kernels"),
    [pytest.param(FIRST, SOME, marks=pytest.mark.slow, id=f"{FIRST}, some kernels"),
     *(pytest.param(core, (), id=core,
                    marks=[pytest.mark.arm, pytest.mark.slow, pytest.mark.xdist_group(core)])
       for core in retarget.CORES)],
)  # fmt: skip
#: Instructions that a core lacks which has not the feature.
OF_FEATURE = {
    "dotprod": r"^\t[su]dot\s",
    "i8mm": r"^\t([su]mmla|us(mmla|dot)|sudot)\s",
    "sve": r"^\t(ptrue|while\w+|ld1[bhwd]\s|\w+\s+[zp]\d+\.)",
}


#: Kernels that, without a dot product, add up the products of a line of levels at once.
ADDED_AT_ONCE = tuple(
    f"grouped_{kind}_{name}"
    for kind in ("gemv", "gemm")
    for name in ("three_bit", "nibble", "eight_bit")
)


@functools.cache
def compiled(core, kernels):
    """Kernel -> assembly on a core, of all or those named."""
    return retarget.assemblies(core, *kernels)


def multiplying(core, kernel):
    """The instruction that a kernel's loop is made of on a core."""
    features = retarget.CORES[core]
    if kernel in loops.LOOK_UPS:
        return "tbl"
    if kernel in ("gemv_fp16", "gemv_bf16", "gemv_e4m3", "gemv_e5m2"):
        return "fmla"
    if kernel.startswith("gemm") and "i8mm" in features:
        return "smmla"
    if "dotprod" in features:
        return "sdot"
    # Whose sums are closed behind each product have nothing to add to.
    return "smull" if kernel.startswith(ADDED_AT_ONCE) else "smlal2"


@CORES
def test_the_loops_are_made_of_the_cores_instruction(core, kernels):
    """Of all that multiplies, and base3's look-up by two instructions."""
    for kernel, assembly in compiled(core, kernels).items():
        loop = loops.hot(kernel, assembly)
        assert loop.instructions[multiplying(core, kernel)], kernel
        if kernel in ("gemv_base3", "batch_base3"):
            assert loop.instructions["tbl"] == loop.instructions["tbx"] > 0, kernel


@CORES
def test_the_loops_spill_nothing(core, kernels):
    """But for some tokens at a time, where the codes of a line are kept along with all the sums."""
    for kernel, assembly in compiled(core, kernels).items():
        loop = loops.hot(kernel, assembly)
        assert kernel.startswith("batch") or not loop.spills, kernel


@CORES
def test_no_more_instructions_than_the_table_has(core, kernels):
    """Nor spills: `python -m bench.arm.loops` writes it anew."""
    table = loops.committed()
    found = compiled(core, kernels)
    assert set(found) == (set(kernels) or {kernel for of, kernel in table if of == core})
    for kernel, assembly in found.items():
        loop = loops.hot(kernel, assembly)
        each, spills = table[core, kernel]
        assert loop.each <= each, f"{kernel}: {loop}"
        assert loop.spills <= spills, f"{kernel}: {loop}"


@CORES
def test_no_instruction_that_the_core_lacks(core, kernels):
    """Nowhere in the code, and SVE on no core."""
    features = retarget.CORES[core]
    for kernel, assembly in compiled(core, kernels).items():
        assert re.search(r"\bv\d+\.", assembly), kernel
        for feature, pattern in OF_FEATURE.items():
            found = re.search(pattern, assembly, re.MULTILINE)
            assert feature in features or not found, f"{kernel}: {found}"


@pytest.mark.slow
def test_few_instructions_a_weight():
    """On a core with the dot product: 64 weights of two_bit need 9 and their activations."""
    found = compiled(FIRST, SOME)
    assert loops.hot("gemv_two_bit", found["gemv_two_bit"]).each <= 0.20
    assert loops.hot("gemv_base3", found["gemv_base3"]).each <= 0.35


@pytest.mark.slow
@pytest.mark.parametrize("core", ["cortex-a72", "neoverse-n1"])
def test_the_barrier_acquires_and_releases(core):
    """The phase is loaded so twice and stored so, the number reset and added to; on cores with and
    without an instruction for that."""
    text = retarget.assemblies(core, "linear")["linear"]
    assert len(re.findall(r"^\tldar\s", text, re.MULTILINE)) >= 2
    assert len(re.findall(r"^\tstlr\s", text, re.MULTILINE)) >= 2
    added = r"^\t(ldaxr|stlxr)\s" if core == "cortex-a72" else r"^\tldaddal\s"
    assert re.search(added, text, re.MULTILINE)


def test_the_loop_finder():
    """The innermost loop that does most, by all forms of branches, and what it spills."""
    text = "\n".join(
        ("f:", ".LBB0_1:", "\tstr\tx0, [sp, #8]  // 8-byte Folded Spill", ".LBB0_2: // %loop",
         "\tldr\tq0, [x1]", "\tsdot\tv1.4s, v0.16b, v2.16b", "\tsdot\tv3.4s, v0.16b, v2.16b",
         "\tldr\tq5, [sp, #16]   // 16-byte Folded Reload", "\tldr\tx5, [sp] // 8-byte Reload",
         "\t.p2align 2", "\tb.ne\t.LBB0_2", ".LBB0_3:", "\tsmmla\tv1.4s, v2.16b, v3.16b // more",
         "\ttbnz\tw0, #3, .LBB0_3", "\tcbz\tx0, .LBB0_1", "\tb.eq\t.LBB0_4", ".LBB0_4:", "\tret")
    )  # fmt: skip
    first, second = loops.innermost(text)
    assert first[0].startswith(".LBB0_2")
    assert second[0] == ".LBB0_3:"
    loop = loops.hot("gemv_two_bit", text)
    assert dict(loop.instructions) == {"ldr": 3, "sdot": 2, "b.ne": 1}
    assert (loop.length, loop.products, loop.spills) == (6, 32, 1)
    assert loop.each == 6 / 32


def test_the_table_of_loops_can_be_read_again(tmp_path, monkeypatch):
    """What `table` writes, `committed` reads."""
    lines = (
        ["\ttbl\tv0.16b"] * 4
        + ["\tadd\tx0, x0 // 8-byte Folded Spill"] * 2
        + ["\tadd\tx0, x0"] * 15
    )
    loop = loops.Loop("gemv_tl1", tuple(lines))
    monkeypatch.setattr(loops, "TABLE", tmp_path / "loops.csv")
    loops.TABLE.write_text(loops.table({"neoverse-n1": {"gemv_tl1": loop}}), "utf-8")
    assert loops.committed() == {("neoverse-n1", "gemv_tl1"): (21 / 64, 2)}


#: On x86 `make test-arm` computes all; elsewhere `make test` has those of a wheel's kernels.
MODES = [pytest.param((), marks=pytest.mark.arm, id="all")]
if host.machine() != "x86_64":
    MODES.append(pytest.param(("--brief",), id="brief"))


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_the_results_of_this_machine_are_x86s(mode):
    """Bit for bit, whatever its architecture; `make test-arm` shows it for emulated ARM CPUs."""
    done = processes.python("-m", "tests.arm.results", *mode)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["tier"], found["results"]) == (detect.TIER.name, results.expected(bool(mode)))


# ------------------------------------------------------------------------- what a core has


class Library:
    """A C library that answers with given values."""

    def __init__(self, auxiliary=None, sysctl=None):
        if auxiliary is not None:
            self.getauxval = self._Function(lambda entry: auxiliary.get(entry, 0))
        if sysctl is not None:
            self._sysctl = sysctl

    class _Function:
        def __init__(self, answer):
            self._answer = answer

        def __call__(self, *arguments):
            return self._answer(*arguments)

    def sysctlbyname(self, name, value, *_):
        if name not in self._sysctl:
            return -1
        ctypes.cast(value, ctypes.POINTER(ctypes.c_int))[0] = self._sysctl[name]
        return 0


@pytest.mark.parametrize(
    ("platform", "library", "expected"),
    [
        ("linux", Library({16: 1 << 20, 26: 1 << 13}), (True, True)),
        ("linux", Library({16: 0xFFFFFFFF ^ 1 << 20, 26: 1 << 13}), (False, True)),
        ("linux", Library({16: 1 << 20}), (True, False)),
        ("linux", Library(), (False, False)),  # a C library without getauxval
        ("darwin", Library(sysctl={b"hw.optional.arm.FEAT_DotProd": 1}), (True, False)),
        ("darwin", Library(sysctl={b"hw.optional.arm.FEAT_DotProd": 1,
                                   b"hw.optional.arm.FEAT_I8MM": 1}), (True, True)),
        ("darwin", Library(sysctl={b"hw.optional.arm.FEAT_DotProd": 0}), (False, False)),
    ],
)  # fmt: skip
def test_the_system_reports_the_features(monkeypatch, platform, library, expected):
    """Linux by the auxiliary vector, macOS by sysctl; what is not reported is not there."""
    monkeypatch.setattr(hwcap, "sys", types.SimpleNamespace(platform=platform))
    monkeypatch.setattr(hwcap.ctypes, "CDLL", lambda name: library)
    assert hwcap.features.__wrapped__() == dict(zip(("dotprod", "i8mm"), expected, strict=True))


@pytest.mark.parametrize("has", [True, False])
def test_llvm_gets_what_the_system_reports(monkeypatch, has):
    """Whatever LLVM finds by the model's name; and nothing of SVE."""
    monkeypatch.setattr(host, "CPU_FEATURES", None)
    monkeypatch.setattr(host, "machine", lambda: "aarch64")
    monkeypatch.setattr(hwcap, "features", lambda: {"dotprod": has, "i8mm": False})
    found = llvm.FeatureMap(neon=True, sve=True, lse=False)
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: found)
    listed = host.feature_list.__wrapped__().split(",")
    assert listed[:2] == ["-lse", "+neon"]
    assert f"{'+' if has else '-'}dotprod" in listed
    assert {"-i8mm", "-sve", "-sve2"} <= set(listed)
    assert "+sve" not in listed


def test_what_was_asked_for_has_no_sve_either(monkeypatch):
    """NUMBA_CPU_FEATURES stands, but for that; of a feature named twice the last counts."""
    monkeypatch.setattr(host, "CPU_FEATURES", "+neon,+sve2,+dotprod,+i8mm,-dotprod")
    monkeypatch.setattr(host, "machine", lambda: "aarch64")
    monkeypatch.setattr(host, "feature_list", host.feature_list.__wrapped__)
    expected = "+neon,+dotprod,+i8mm,-dotprod,-sve,-sve2,-sme"
    assert host.feature_list() == expected
    assert host.features.__wrapped__() == {"neon", "i8mm"}


@pytest.mark.parametrize(
    ("features", "names"),
    [
        ({"neon"}, ["neon", "generic"]),
        ({"dotprod"}, ["neon-dotprod", "neon", "generic"]),
        ({"i8mm"}, ["neon", "generic"]),
        ({"dotprod", "i8mm"}, ["neon-i8mm", "neon-dotprod", "neon", "generic"]),
    ],
)
def test_the_tiers_of_a_core(monkeypatch, features, names):
    """Best first; a tier that it lacks is refused in one line."""
    monkeypatch.setattr(host, "machine", lambda: "aarch64")
    monkeypatch.setattr(host, "features", lambda: frozenset(features))
    assert [tier.name for tier in detect.available()] == names
    if "neon-i8mm" not in names:
        lacking = ", ".join(each for each in ("dotprod", "i8mm") if each not in features)
        expected = f"^TERNOPS_ISA='neon-i8mm': this CPU lacks {lacking}; expected one of "
        with pytest.raises(ValueError, match=expected + ", ".join(names)):
            detect.choose("neon-i8mm")
