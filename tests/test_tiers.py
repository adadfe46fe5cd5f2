"""Each instruction tier gives the same bits, and the choice among them never crashes."""

from __future__ import annotations

import pytest

from ternops.simd import targets, vector
from tests import processes

#: What the bits of every tier are judged by.
FILES = ("matmul_exact", "matmul_numpy", "simd", "half", "elementwise", "decoder")

#: One product and one short text, compared with their oracles.
WORKS = """
import numpy as np
import ternops
from tests import cases
from ternops.decoder import Model, reference as decoder
from ternops.kernels import reference
from ternops.simd import targets
for shape in ((1, 1), (37, 1021), (64, 1024)):
    trits, x = cases.trits(*shape), cases.activations(9, shape[1])
    expected = reference.matmul_int32(x, trits)
    assert cases.same_bits(x @ ternops.pack(trits).T, expected)
    assert cases.same_bits(ternops.pack(trits) @ x[0], expected[0])
model = Model.from_pretrained(threads=2)
tokens = [0, 5, 900, 31, 77, 512]
assert cases.same_bits(model.logits(tokens), decoder.logits(model, tokens))
print(targets.TIER.name)
"""

X86 = pytest.mark.skipif(vector.machine() not in ("x86_64", "amd64"), reason="not an x86 CPU")


@pytest.mark.parametrize("tier", [tier.name for tier in targets.TIERS])
def test_every_tier_passes_the_exactness_tests(tier):
    """The products, vector operations and decoder of a tier, in a process of its own."""
    if processes.is_current(tier):
        pytest.skip("this very process runs them on that tier")
    if reason := processes.lacking(tier):
        pytest.skip(reason)
    files = [f"tests/test_{name}.py" for name in FILES]
    options = ("-q", "-x", "-p", "no:cacheprovider")
    done = processes.python("-m", "pytest", *options, *files, timeout=600, TERNOPS_ISA=tier)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert " passed" in done.stdout
    assert f"now {tier}" in processes.run_code(
        "from ternops.simd import targets; print('now', targets.TIER.name)", TERNOPS_ISA=tier
    )


def test_a_cpu_without_features_works():
    """Numba told of no feature at all: the generic tier, with the oracles' bits."""
    printed = processes.run_code(WORKS, timeout=600, **processes.FEATURELESS)
    assert printed.split() == ["generic"]


@X86
def test_a_haswell_uses_avx2_by_itself():
    """Numba told of AVX2, F16C and FMA but not of AVX-512: the avx2 tier, and the right bits."""
    if reason := processes.lacking("avx2"):
        pytest.skip(reason)
    assert processes.run_code(WORKS, timeout=600, **processes.HASWELL).split() == ["avx2"]


@X86
@pytest.mark.parametrize("lost", ["f16c", "fma", "avx2"])
def test_each_feature_of_a_tier_is_needed(lost):
    """Without one feature of avx2 the generic tier is chosen."""
    features = processes.HASWELL["NUMBA_CPU_FEATURES"].replace(f"+{lost},", "")
    assert lost not in features
    code = "from ternops.simd import targets; print(targets.TIER.name)"
    environment = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": features}
    assert processes.run_code(code, **environment).split() == ["generic"]


def refusal(**environment):
    """The last line of the error of `import ternops`, which must be an ordinary exception."""
    done = processes.python("-c", "import ternops", **environment)
    assert done.returncode == 1, f"exit code {done.returncode}\n{done.stderr}"
    assert done.stdout == ""
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["bogus", "AVX2", "avx512vnni ", "auto"])
def test_an_unknown_tier_is_a_value_error(name):
    """One line that names the variable, its value and the tiers there are; no abort."""
    line = refusal(TERNOPS_ISA=name)
    assert line.startswith(f"ValueError: TERNOPS_ISA={name!r}: unknown tier; expected one of")
    assert "generic" in line


@pytest.mark.parametrize("tier", [tier.name for tier in targets.TIERS if tier.features])
def test_a_tier_that_the_cpu_lacks_is_a_value_error(tier):
    """One line that names what is lacking; never an illegal instruction."""
    line = refusal(TERNOPS_ISA=tier, **processes.FEATURELESS)
    assert line.startswith(f"ValueError: TERNOPS_ISA={tier!r}: this CPU lacks ")
    assert line.endswith("expected one of generic")


def test_an_empty_choice_is_none():
    """TERNOPS_ISA set to nothing leaves the choice to the package."""
    code = "from ternops.simd import targets; print(targets.TIER.name, targets.available()[0].name)"
    chosen, best = processes.run_code(code, TERNOPS_ISA="").split()
    assert chosen == best


def test_info_tells_the_tier_and_why():
    """`python -m ternops info` under a tier that was asked for."""
    done = processes.python("-m", "ternops", "info", TERNOPS_ISA="generic")
    assert done.returncode == 0
    assert "generic: set by TERNOPS_ISA" in done.stdout
