"""The machine code of the product: the tier's own dot instruction, in a loop without spills."""

from __future__ import annotations

import re

import pytest

from tests import processes
from ternops.simd import targets, vector

PRINT = "from ternops.kernels.linear import linear; print(linear.assembly())"
LABEL = re.compile(r"^([.$\w]+):")
JUMP = re.compile(r"^\s+j(?!mp)[a-z]+\s+([.$\w]+)\s*$")
ANY_JUMP = re.compile(r"^\s+(?:j[a-z]+|loop\w*)\s+([.$\w]+)\s*$")
#: A stack address as the last operand (AT&T syntax): what a store writes to.
STACK_STORE = re.compile(r",\s*-?(?:0x)?[\da-f]*\(%[re][sb]p[^)]*\)(?:\s*\{%k\d\})?\s*$")

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
    return processes.run_code(PRINT, TERNOPS_ISA=tier)


@pytest.fixture(scope="module")
def avx512vnni():
    return assembly_of("avx512vnni")


@pytest.fixture(scope="module")
def avx2():
    return assembly_of("avx2")


def test_the_loop_finder():
    """A nested loop's inner body is found, with its stack stores; the outer one is not."""
    text = (
        "f:\n.L1:\n\tmovl %eax, 8(%rsp)\n.L2:\n\tvpdpbusd %zmm1, %zmm2, %zmm3\n"
        "\tvmovdqu64 %zmm3, 64(%rsp)\t# 64-byte Spill\n\tjne\t.L2\n\tjb\t.L1\n\tje\t.L3\n.L3:\n\tret\n"
    )
    (body,) = innermost_loops(text)
    assert body[0] == ".L2:"
    assert len(loops_with(text, "vpdpbusd", "zmm")) == 1
    assert loops_with(text, "vpdpbusd", "ymm") == []
    assert spills(body) == ["\tvmovdqu64 %zmm3, 64(%rsp)"]


def spills(body):
    """The lines of a loop that write to the stack."""
    stack = [line for line in body if STACK_STORE.search(line)]
    return [line for line in stack if not re.match(r"^\s+(?:v?p?cmp|test|prefetch)", line)]


def test_avx512vnni_runs_vpdpbusd_on_whole_registers(avx512vnni):
    """vpdpbusd on zmm inside an innermost loop, 16 of them for the four rows of the GEMV."""
    loops = loops_with(avx512vnni, "vpdpbusd", "zmm")
    assert loops
    assert 16 in [count(body, "vpdpbusd") for body in loops]
    assert not loops_with(avx512vnni, "vpmaddubsw", "[xyz]mm")


def test_avx2_runs_vpmaddubsw(avx2):
    """vpmaddubsw and vpmaddwd on ymm inside an innermost loop, and nothing of AVX-512."""
    loops = loops_with(avx2, "vpmaddubsw", "ymm")
    assert loops
    assert all(count(body, "vpmaddwd") == count(body, "vpmaddubsw") for body in loops)
    assert "vpdpbusd" not in avx2


@pytest.mark.parametrize(
    ("tier", "dot", "registers", "each"),
    [("avx512vnni", "vpdpbusd", "zmm", 16), ("avx2", "vpmaddubsw", "ymm", 8)],
)
def test_the_loop_of_the_gemv_spills_nothing(request, tier, dot, registers, each):
    """No store to the stack in the loops over one token: all accumulators stay in registers."""
    text = request.getfixturevalue(tier)
    loops = [body for body in loops_with(text, dot, registers) if count(body, dot) % each == 0]
    assert loops
    assert [line for body in loops for line in spills(body)] == []


def test_a_cpu_without_features_gets_plain_sse2():
    """No register wider than xmm, and no instruction of AVX at all."""
    text = processes.run_code(PRINT, **processes.FEATURELESS)
    assert re.search(r"%xmm\d", text)
    assert not re.search(r"%[yz]mm\d", text)
    assert not re.search(r"^\s+v[a-z]", text, re.MULTILINE)


def test_this_process_gives_its_own_assembly():
    """`assembly` of this process names the tier's instruction too."""
    from ternops.kernels.linear import linear

    dots = {"avx512vnni": "vpdpbusd", "avx2": "vpmaddubsw"}
    text = linear.assembly()
    assert "linear" in text
    for name, instruction in dots.items():
        assert (instruction in text) == (name == targets.TIER.name)
