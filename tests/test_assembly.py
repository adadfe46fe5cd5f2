"""The machine code of the product: the tier's own dot instruction, in a loop without spills."""

from __future__ import annotations

import re

import pytest

from ternops.encodings.two_bit import BLOCK_BYTES
from ternops.kernels import table
from ternops.kernels.linear import linear
from ternops.simd import targets, vector
from tests import processes

PRINT = "from ternops.kernels.linear import linear; print(linear.assembly())"
LABEL = re.compile(r"^([.$\w]+):")
JUMP = re.compile(r"^\s+j(?!mp)[a-z]+\s+([.$\w]+)\s*$")
#: A stack address as the last operand (AT&T syntax): what a store writes to.
STACK_STORE = re.compile(r",\s*-?(?:0x)?[\da-f]*\(%[re][sb]p[^)]*\)(?:\s*\{%k\d\})?\s*$")

#: Instructions whose last operand is not written.
READS_ONLY = re.compile(r"^\s+(?:cmp|test|prefetch|bt[a-z]?\s)")
VECTOR_STORE = re.compile(r"^\s+\w+\s+%[xyz]mm\d+,[^#]*\)(?:\s*\{%k\d\})?\s*$")

pytestmark = pytest.mark.skipif(
    vector.machine() not in ("x86_64", "amd64"), reason="reads x86 assembly"
)


def innermost_loops(assembly):
    """The bodies of the loops that hold no other loop: label ... jump back to it."""
    lines = [line.split("#")[0].rstrip() for line in assembly.splitlines()]
    labels = {match[1]: i for i, line in enumerate(lines) if (match := LABEL.match(line))}
    spans = []
    for i, line in enumerate(lines):
        match = JUMP.match(line)
        if match and labels.get(match[1], len(lines)) < i:
            spans.append((labels[match[1]], i))
    inner = [
        span
        for span in spans
        if not any(other != span and span[0] <= other[0] and other[1] <= span[1] for other in spans)
    ]
    return [lines[first : last + 1] for first, last in inner]


def loops_with(assembly, instruction, registers):
    """Innermost loops that have an instruction on registers of a kind ("zmm")."""
    wanted = re.compile(rf"^\s+{instruction}\s.*%{registers}\d")
    return [body for body in innermost_loops(assembly) if any(wanted.match(line) for line in body)]


def count(body, instruction):
    """How often an instruction stands in a loop."""
    return sum(bool(re.match(rf"^\s+{instruction}\s", line)) for line in body)


def assembly_of(tier):
    """The text of the product's machine code on a tier, compiled in a process of its own."""
    if reason := processes.lacking(tier):
        pytest.skip(reason)
    # Of AVX2 alone: a better CPU's compiler options would put newer instructions in as well.
    setting = processes.HASWELL if tier == "avx2" else {"TERNOPS_ISA": tier}
    return processes.run_code(PRINT, **setting)


@pytest.fixture(scope="module")
def avx512vnni():
    """The assembly of the avx512vnni tier."""
    return assembly_of("avx512vnni")


@pytest.fixture(scope="module")
def avx2():
    """The assembly of the avx2 tier."""
    return assembly_of("avx2")


def gemv_of(assembly):
    """The functions that multiply one token: gemv, or everything where it was inlined."""
    parts = re.split(r"^(?=[A-Za-z_][.$\w]*:)", assembly, flags=re.MULTILINE)
    own = [part for part in parts if "gemv" in part.split(":", 1)[0]]
    return "".join(own) or assembly


def spills(body):
    """The lines of a loop that write to the stack, or write a whole vector anywhere."""
    return [
        line
        for line in body
        if (STACK_STORE.search(line) and not READS_ONLY.match(line)) or VECTOR_STORE.match(line)
    ]


def test_the_loop_finder():
    """A nested loop's inner body is found, with its stores; the outer loop is not."""
    text = "\n".join(
        ("f:", ".L1:", "\tmovl %eax, 8(%rsp)", ".L2:", "\tvpdpbusd %zmm1, %zmm2, %zmm3",
         "\tvmovdqu64 %zmm3, 64(%rsp)\t# 64-byte Spill", "\tmovq\t%rax, -8(%rsp)",
         "\tvmovdqa64 %ymm3, (%rdi,%rax)", "\tcmpl $3, 8(%rsp)", "\tvpaddd 8(%rsp), %ymm1, %ymm2",
         "\tprefetcht0\t(%rax)", "\tjne\t.L2", "\tjb\t.L1", "\tje\t.L3", ".L3:", "\tret")
    )  # fmt: skip
    (body,) = innermost_loops(text)
    assert body[0] == ".L2:"
    assert len(loops_with(text, "vpdpbusd", "zmm")) == 1
    assert loops_with(text, "vpdpbusd", "ymm") == []
    assert len(spills(body)) == 3


def test_avx512vnni_runs_vpdpbusd_on_whole_registers(avx512vnni):
    """vpdpbusd on zmm inside an innermost loop, and no instruction of the tier below."""
    assert loops_with(avx512vnni, "vpdpbusd", "zmm")
    assert not re.search(r"^\s+vpmaddubsw\s", avx512vnni, re.MULTILINE)


def test_avx2_runs_vpmaddubsw(avx2):
    """vpmaddubsw, each with its vpmaddwd, on ymm inside an innermost loop; nothing of AVX-512."""
    loops = loops_with(avx2, "vpmaddubsw", "ymm")
    assert loops
    assert all(count(body, "vpmaddwd") == count(body, "vpmaddubsw") for body in loops)
    assert "vpdpbusd" not in avx2


@pytest.mark.parametrize(
    ("tier", "dot", "registers"),
    [("avx512vnni", "vpdpbusd", "zmm"), ("avx2", "vpmaddubsw", "ymm")],
)
def test_the_loop_of_the_gemv_spills_nothing(request, tier, dot, registers):
    """A whole tile of dots in one loop that stores nothing: the sums stay in registers."""
    rows, _, apart = table.GEMV["two_bit", tier]
    width = next(each.vector_bytes for each in targets.TIERS if each.name == tier)
    whole = rows * apart * BLOCK_BYTES // width
    loops = loops_with(gemv_of(request.getfixturevalue(tier)), dot, registers)
    tiles = [body for body in loops if count(body, dot) % whole == 0]
    assert tiles
    assert any(count(body, r"prefetch\w*") >= rows for body in tiles)
    assert [line for body in loops for line in spills(body)] == []


def test_a_cpu_without_features_gets_plain_sse2():
    """No register wider than xmm, and no instruction of AVX at all."""
    text = processes.run_code(PRINT, **processes.FEATURELESS)
    assert re.search(r"%xmm\d", text)
    assert not re.search(r"%[yz]mm\d", text)
    assert not re.search(r"^\s+v[a-z]", text, re.MULTILINE)


def test_this_process_gives_its_own_assembly():
    """`assembly` of this process names the tier's instruction too."""
    dots = {"avx512vnni": "vpdpbusd", "avx2": "vpmaddubsw"}
    text = linear.assembly()
    assert "linear" in text
    for name, instruction in dots.items():
        assert (instruction in text) == (name == targets.TIER.name)
