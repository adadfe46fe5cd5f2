"""What LLVM makes of the dot product of the tier "neon" on ARM cores, compiled here for them."""

import llvmlite.binding as llvm
import pytest

from ternops.simd import arm

#: The products of sign-extended bytes, as `dot_neon` writes them.
_DOT = f"""
declare <4 x i32> @{arm.PARTIAL_REDUCE}(<4 x i32>, <16 x i32>)

define <4 x i32> @dot(<4 x i32> %sums, <16 x i8> %codes, <16 x i8> %signed) {{
  %left = sext <16 x i8> %codes to <16 x i32>
  %right = sext <16 x i8> %signed to <16 x i32>
  %products = mul <16 x i32> %left, %right
  %result = call <4 x i32> @{arm.PARTIAL_REDUCE}(<4 x i32> %sums, <16 x i32> %products)
  ret <4 x i32> %result
}}
"""


def instructions(cpu):
    """Of that function, compiled for a core."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple("aarch64-unknown-linux-gnu")
    machine = target.create_target_machine(cpu=cpu, opt=3)
    text = machine.emit_assembly(llvm.parse_assembly(_DOT))
    lines = text[text.index("\ndot:") :].splitlines()
    words = [line.split()[0] for line in lines if line.startswith("\t")]
    return [word for word in words if not word.startswith(".")]


@pytest.mark.parametrize(
    "cpu", ["cortex-a76", "neoverse-n1", "neoverse-n2", "neoverse-v1", "apple-m1"]
)
def test_cores_with_the_dot_product_use_it(cpu):
    """One instruction for 16 products."""
    assert instructions(cpu) == ["sdot", "ret"]


@pytest.mark.parametrize("cpu", ["generic", "cortex-a53", "cortex-a72"])
def test_others_multiply_and_add(cpu):
    """Nothing that they lack, and no function of a library."""
    found = instructions(cpu)
    assert set(found) <= {"smull", "smull2", "saddw", "saddw2", "smlal", "smlal2", "ret"}
    assert len(found) <= 7
