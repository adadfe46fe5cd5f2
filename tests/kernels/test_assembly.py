"""The machine code of the GEMVs: the tier's own instruction, in loops that spill nothing."""

from __future__ import annotations

import functools
import re

import pytest

from bench.arm.loops import innermost
from ternops.encodings import ENCODINGS
from ternops.encodings.blocks import Blocks
from ternops.encodings.panels import Panels
from ternops.encodings.row_groups import RowGroups
from ternops.isa import detect
from ternops.kernels import tiles
from ternops.kernels.grouped_gemm import TOKENS, grouped_gemm
from ternops.kernels.plan import KERNELS
from ternops.simd import host
from tests.helpers import cases, processes
from tests.helpers.marks import FEW, apart

#: Encoding and shape class of each GEMV of whole rows.
EVERY = [
    (encoding, kind)
    for encoding in cases.ENCODINGS
    if not isinstance(ENCODINGS[encoding], Panels)
    for kind in cases.OF_ONE_TOKEN
]

#: tier -> its dot product and its look-up, with the registers that they work on.
DOTS = {
    "amx": ("vpdpbusd", "zmm"),
    "avx512vbmi": ("vpdpbusd", "zmm"),
    "avx512vnni": ("vpdpbusd", "zmm"),
    "avxvnni": ("vpdpbusd", "ymm"),
    "avx2": ("vpmaddubsw", "ymm"),
}
LOOK_UPS = {"zmm": "vpermw", "ymm": "vpshufb"}
#: What stands in no code for an honest CPU of a tier: all that only better tiers have.
EVEX = r"%zmm|%k\d|%[xy]mm(1[6-9]|[23]\d)"
BETTER = {
    "avx512vbmi": r"%tmm",
    "avx512vnni": r"%tmm|\svperm(i2|t2|)b\s",
    "avxvnni": EVEX,
    "avx2": rf"{EVEX}|\svpdp",
    "generic": r"%[yz]mm|^\s+v[a-z]",
}

JUMP = re.compile(r"^\s+j(?!mp)[a-z]+\s+([.$\w]+)")
#: A write of any size, or a read of a whole vector; a loop's counters may be read.
SPILL = re.compile(r"# .*(Spill|(16|32|64)-byte.* Reload)")

pytestmark = pytest.mark.skipif(
    host.machine() not in ("x86_64", "amd64"), reason="reads x86 assembly"
)
#: "this" is the CPU and the choice of this process, which stands for its tier in `make test`.
OTHERS = (*(name for name in FEW if name != detect.TIER.name), "this")
CPU = pytest.mark.parametrize(
    "cpu",
    apart([*(name for name in processes.CPUS if name in DOTS), "this"], "assembly", OTHERS),
)
GEMV = pytest.mark.parametrize("gemv", EVERY, ids="-".join)


def count(body, instruction, registers=""):
    """How often an instruction, on registers of a kind ("zmm"), stands in a loop."""
    wanted = re.compile(rf"^\s+(\{{vex\}}\s+)?{instruction}\s.*{registers}")
    return sum(bool(wanted.match(line)) for line in body)


def spills(body):
    """The lines of a loop that bring a register to the stack, or a vector back from it."""
    return [line for line in body if SPILL.search(line)]


@functools.cache
def texts(cpu):
    """The machine code of each GEMV on a CPU."""
    if reason := processes.lacking(cpu):
        pytest.skip(reason)
    environment = processes.current() if cpu == "this" else processes.CPUS[cpu]
    parts = processes.run_program("assembly", **environment).split("@@@ ")[1:]
    found = dict(part.split("\n", 1) for part in parts)
    assert set(found) == {kernel(cpu, gemv) for gemv in EVERY}
    return {gemv: found[kernel(cpu, gemv)] for gemv in EVERY}


def tier_of(cpu):
    """Of one of CPUS, or of this one."""
    name = detect.TIER.name if cpu == "this" else cpu
    return next(tier for tier in detect.TIERS if tier.name == name)


def tile_of(cpu, gemv):
    """The tile of a GEMV on a CPU."""
    encoding, kind = gemv
    family = detect.FAMILY if cpu == "this" else ""
    return tiles.default_tile(ENCODINGS[encoding], kind, tier_of(cpu), family)


def kernel(cpu, gemv):
    """The name of its kernel."""
    layout = ENCODINGS[gemv[0]]
    if isinstance(layout, RowGroups):
        return f"gemv_{layout.name}"
    return tiles.kernel_name(layout, tile_of(cpu, gemv), tier_of(cpu))


def expected(cpu, gemv):
    """The tier of a CPU, and the instruction that its GEMV is made of, with its registers."""
    tier = tier_of(cpu).name
    if tier not in DOTS:
        pytest.skip(f"the {tier} tier has no instruction of its own")
    dot, registers = DOTS[tier]
    if isinstance(ENCODINGS[gemv[0]], RowGroups):
        return tier, LOOK_UPS[registers], registers
    if registers == "zmm" and tile_of(cpu, gemv).is_narrow:
        registers = "ymm"
    return tier, dot, registers


def loops_of(text, instruction, registers):
    """The loops along the columns: innermost, with the instruction, asking for weights ahead."""
    return [
        body
        for body in innermost(text, JUMP)
        if count(body, instruction, f"%{registers}") and count(body, r"prefetch\w*")
    ]


def test_the_loop_finder():
    """A nested loop's inner body is found, with its spills; the outer loop is not."""
    text = "\n".join(
        ("f:", ".L1:", "\tmovl %eax, 8(%rsp)  # 4-byte Spill", ".L2:\t\t\t\t# %loop",
         "\t{vex}\tvpdpbusd %ymm1, %ymm2, %ymm3", "\tvpdpbusd %zmm1, %zmm2, %zmm3",
         "\tvmovdqu64 %zmm3, 64(%rsp)\t# 64-byte Spill", "\tmovq\t%rax, -8(%rsp) # 8-byte Spill",
         "\tvmovdqa64 %ymm3, 8(%rsp,%rax)", "\tcmpl $3, 8(%rsp)  # 8-byte Folded Reload",
         "\tvpaddd 8(%rsp), %ymm1, %ymm2 # 32-byte Folded Reload", "\tvmovdqu %xmm1, (%rax)",
         "\tprefetcht0\t(%rax)", "\tjne\t.L2  # back", "\tjb\t.L1", "\tje\t.L3", ".L3:", "\tret")
    )  # fmt: skip
    (body,) = innermost(text, JUMP)
    assert body[0].startswith(".L2:")
    assert loops_of(text, "vpdpbusd", "zmm") == loops_of(text, "vpdpbusd", "ymm") == [body]
    assert count(body, "vpdpbusd") == 2
    assert loops_of(text, "vpdpbusd", "xmm") == []
    assert len(spills(body)) == 3


@CPU
@GEMV
def test_the_loops_are_made_of_the_tiers_instruction(cpu, gemv):
    """A whole tile of dots, or a whole unit of look-ups, in each of the loops along the columns."""
    tier, instruction, registers = expected(cpu, gemv)
    loops = loops_of(texts(cpu)[gemv], instruction, registers)
    assert loops
    encoding, _ = gemv
    layout, bytes_ = ENCODINGS[encoding], {"zmm": 64, "ymm": 32}[registers]
    if isinstance(layout, Blocks):
        each = layout.fields * 64 // bytes_
        numbers = [count(body, instruction, f"%{registers}") for body in loops]
        assert all(number % each == 0 for number in numbers)
        tile = tile_of(cpu, gemv)
        # Where several lines of a row are read before the next row's, each row has its own loop.
        rows = tile.rows if tile.run == 1 else 1
        assert any(number % (each * rows) == 0 for number in numbers)
    if (encoding, tier) == ("base3", "avx512vbmi"):
        assert all(count(body, r"vperm[it]2b", "%zmm") for body in loops)


@CPU
@GEMV
def test_the_loops_of_the_gemv_spill_nothing(cpu, gemv):
    """Sums and constants stay in registers."""
    _, instruction, registers = expected(cpu, gemv)
    loops = loops_of(texts(cpu)[gemv], instruction, registers)
    assert loops
    for body in loops:
        assert not spills(body), "\n".join(body)


@pytest.mark.parametrize("cpu", apart(processes.CPUS, "assembly", OTHERS))
def test_nothing_of_a_better_tier(cpu):
    """On a CPU that has a tier and nothing more; a CPU without features gets plain SSE2."""
    better = re.compile(BETTER[cpu], re.MULTILINE)
    for name, text in texts(cpu).items():
        assert re.search(r"%xmm\d", text), name
        assert not (found := better.search(text)), f"{name}: {found}"


@pytest.mark.slow
def test_this_process_gives_its_own_assembly():
    """`assembly` of this process names the function and its tier's instruction."""
    _, multiply = KERNELS["two_bit", "one"]
    text = multiply.assembly()
    assert multiply.name in text
    for tier in ("avxvnni", "avx2"):
        dot, _ = DOTS[tier]
        same = DOTS.get(detect.TIER.name, ("", ""))[0] == dot
        assert bool(re.search(rf"\s{dot}\s", text)) == same


@pytest.mark.slow
def test_signed_bytes_on_a_cpu_that_multiplies_them():
    """avxvnniint8 has `vpdpbssd`, and nothing of AVX-512; compiled here, run where there is one."""
    code = "from ternops.kernels.int8 import gemv_i8; print(gemv_i8.assembly())"
    features = f"{processes.AVX2} avxvnni avxvnniint8"
    text = processes.run_code(code, **processes.cpu("sierraforest", features))
    assert re.search(r"\svpdpbssd\s.*%ymm", text)
    assert not re.search(r"%zmm|\svpdpbusd\s", text)


@pytest.mark.slow
def test_products_with_scales_a_group_spill_nothing():
    """The loops of several tokens' products, whose tile must fit the registers; of this CPU."""
    if detect.TIER.name not in DOTS:
        pytest.skip(f"the {detect.TIER.name} tier has no instruction of its own")
    instruction, registers = DOTS[detect.TIER.name]
    bodies = [
        body
        for body in innermost(grouped_gemm(cases.BLOCKS[0]).assembly(), JUMP)
        if count(body, instruction, f"%{registers}")
    ]
    assert max(count(body, instruction, f"%{registers}") for body in bodies) >= 2 * TOKENS
    assert not any(map(spills, bodies))
