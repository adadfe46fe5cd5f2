"""Each instruction tier gives the same bits, and the choice among them never crashes."""

from __future__ import annotations

import pytest

from ternops.isa import detect
from ternops.simd import host
from tests.helpers import processes
from tests.helpers.marks import apart, slow_but

#: What the bits of every tier are judged by: products, vector operations, and the decoder, which
#: uses them all ...
FILES = (
    "library/test_matmul_exact.py", "library/test_matmul_numpy.py", "simd/test_simd.py",
    "encodings/test_lookup.py", "isa/test_half.py", "kernels/test_elementwise.py",
    "kernels/test_grouped.py", "decoder/test_decoder.py",
)  # fmt: skip
#: ... and the decoder's parts one by one.
PARTS = (
    "kernels/test_dense.py", "kernels/test_attention.py", "kernels/test_delta.py",
    "decoder/test_screen.py",
    # Of blocks and of row groups; the other encodings' panels are theirs.
    "kernels/test_tiles.py::test_every_candidate_of_the_gemm_gives_the_same_bits[two_bit]",
    "kernels/test_tiles.py::test_every_candidate_of_the_gemm_gives_the_same_bits[tl2]",
)  # fmt: skip

CHOICE = "from ternops.isa import detect; print(detect.TIER.name)"

X86 = pytest.mark.skipif(host.machine() not in ("x86_64", "amd64"), reason="not an x86 CPU")
TIERS = pytest.mark.parametrize("tier", [tier.name for tier in detect.TIERS])


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("files", "which"),
    [
        pytest.param(FILES, "not slow", id="files"),
        pytest.param(FILES, "slow", id="slow"),
        pytest.param(PARTS, "slow or not slow", id="parts"),
    ],
)
@pytest.mark.parametrize("tier", apart(processes.SETTINGS, "tier", few=()))
def test_every_tier_passes_the_exactness_tests(tier, files, which):
    """The products, vector operations and decoder of a tier, in a process of its own.

    On x86 it is the one that an honest CPU uses by itself: Numba sees its features and no better
    ones.
    """
    processes.skip_unless_another(tier)
    environment = processes.SETTINGS[tier]
    assert processes.run_code(CHOICE, **environment).split() == [tier]
    options = ("-q", "-x", "-p", "no:cacheprovider", "-m", which)
    paths = [f"tests/{name}" for name in files]
    done = processes.python(
        "-m", "pytest", *options, *paths, timeout=1700, one_cpu=True, **environment
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert " passed" in done.stdout


@pytest.mark.slow
@X86
@pytest.mark.parametrize(
    ("tier", "lost", "expected"),
    [("avx512vbmi", "avx512vbmi", "avx512vnni"), ("avx512vnni", "avx512vnni", "avx2"),
     ("avx512vnni", "avx512bw", "avx2"), ("avx512vnni", "avx512vl", "avx2"),
     ("avxvnni", "avxvnni", "avx2"), ("avx2", "f16c", "generic"), ("avx2", "fma", "generic"),
     ("avx2", "avx2", "generic")],
)  # fmt: skip
def test_an_honest_cpu_that_lacks_one_feature(tier, lost, expected):
    """The next tier that does without it is chosen, and nothing aborts."""
    cpu = processes.CPUS[tier]
    features = cpu["NUMBA_CPU_FEATURES"].split(",")
    features.remove(f"+{lost}")
    environment = cpu | {"NUMBA_CPU_FEATURES": ",".join(features)}
    assert processes.run_code(CHOICE, **environment).split() == [expected]


def best(monkeypatch, features):
    """The tier that a CPU with these features gets."""
    monkeypatch.setattr(host, "features", lambda: frozenset(features))
    return detect.choose(None)[0].name


@X86
@TIERS
def test_each_feature_of_a_tier_is_needed(monkeypatch, tier):
    """A CPU with all of a tier's features gets it; without any one of them it gets another."""
    monkeypatch.setattr(detect.x86, "tiles_granted", lambda: True)
    (wanted,) = (each for each in detect.TIERS if each.name == tier)
    features = wanted.features
    if wanted.machines:
        monkeypatch.setattr(host, "machine", lambda: wanted.machines[0])
    assert best(monkeypatch, features) == tier
    for lost in features:
        assert best(monkeypatch, set(features) - {lost}) != tier, lost


@pytest.mark.parametrize("machine", ["aarch64", "arm64"])
def test_an_arm_core_gets_neon(monkeypatch, machine):
    """Whatever x86's features are said to be there."""
    monkeypatch.setattr(host, "machine", lambda: machine)
    assert best(monkeypatch, detect.TIERS[0].features) == "neon"
    with pytest.raises(
        ValueError, match=r"^TERNOPS_ISA='avx2': this CPU lacks architecture x86_64"
    ):
        detect.choose("avx2")


@X86
def test_amx_needs_the_systems_permission(monkeypatch):
    """Without the permission the CPU gets the next tier, and the error names the reason."""
    amx = detect.TIERS[0]
    for granted, expected in ((True, "amx"), (False, "avx512vbmi")):
        monkeypatch.setattr(detect.x86, "tiles_granted", lambda granted=granted: granted)
        assert best(monkeypatch, amx.features) == expected
    with pytest.raises(ValueError, match=r"^TERNOPS_ISA='amx': this CPU lacks the system's perm"):
        detect.choose("amx")


def refusal(**environment):
    """The last line of the error of the first use, which must be an ordinary exception."""
    done = processes.python("-c", "import ternops; ternops.matmul", **environment)
    assert done.returncode == 1, f"exit code {done.returncode}\n{done.stderr}"
    assert done.stdout == ""
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", slow_but(["bogus", "AVX2", "avx512vnni ", "auto"], "bogus"))
def test_an_unknown_tier_is_a_value_error(name):
    """One line that names the variable, its value and the tiers there are; no abort."""
    line = refusal(TERNOPS_ISA=name)
    assert line.startswith(f"ValueError: TERNOPS_ISA={name!r}: unknown tier; expected one of")
    assert "generic" in line


@pytest.mark.slow
@pytest.mark.parametrize("tier", [tier.name for tier in detect.TIERS if tier.features])
def test_a_tier_that_the_cpu_lacks_is_a_value_error(tier):
    """One line that names what is lacking; never an illegal instruction."""
    line = refusal(TERNOPS_ISA=tier, **processes.FEATURELESS)
    assert line.startswith(f"ValueError: TERNOPS_ISA={tier!r}: this CPU lacks ")
    assert line.endswith("expected one of generic")


def test_an_empty_choice_counts_as_unset():
    """TERNOPS_ISA set to nothing leaves the choice to the package."""
    code = "from ternops.isa import detect; print(detect.TIER.name, detect.available()[0].name)"
    chosen, best = processes.run_code(code, TERNOPS_ISA="").split()
    assert chosen == best


def test_info_names_the_tier_and_the_reason():
    """`python -m ternops info` under a tier that was asked for."""
    done = processes.python("-m", "ternops", "info", TERNOPS_ISA="generic")
    assert done.returncode == 0
    assert "generic: set by TERNOPS_ISA" in done.stdout
