"""The amx tier: its arithmetic emulated, its instructions compiled for a CPU that has them."""

from __future__ import annotations

import re

import pytest

from ternops.isa import detect
from ternops.simd import host
from tests.helpers import processes

SAPPHIRE_RAPIDS = (
    "avx2,f16c,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi,amx-tile,amx-int8"
)

pytestmark = pytest.mark.skipif(host.machine() not in ("x86_64", "amd64"), reason="not an x86 CPU")


HAS_AMX = "amx" in [tier.name for tier in detect.available()]


@pytest.mark.slow
@pytest.mark.tiers
@pytest.mark.skipif(HAS_AMX, reason="this CPU has AMX: it multiplies below")
def test_products_of_tiles_are_exact(tmp_path):
    """Everything but the instructions themselves, which are replaced by what they mean."""
    if reason := processes.lacking("avx512vbmi"):
        pytest.skip(f"the emulation runs on AVX-512: {reason}")
    # A cache of its own: the emulated registers' address is part of the code.
    done = processes.program(
        "emulated_amx", "amx_products", NUMBA_CACHE_DIR=str(tmp_path / "cache")
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.split() == ["exact"]


@pytest.mark.slow
@pytest.mark.skipif(not HAS_AMX, reason="this CPU has no AMX: what runs here is the emulation")
def test_products_of_tiles_are_exact_on_this_cpu():
    """The same on the real instructions."""
    assert processes.run_program("amx_products", TERNOPS_ISA="amx").split() == ["exact"]


@pytest.mark.slow
def test_the_loop_is_six_products_of_five_tiles(tmp_path):
    """Compiled for Sapphire Rapids: 48 rows x 32 tokens, of whose five tiles two are loaded twice.

    And 16 rows of a panel's end.
    """
    text = processes.run_program(
        "emulated_amx",
        "--compile-only",
        "assembly",
        "gemm_two_bit",
        NUMBA_CPU_NAME="sapphirerapids",
        NUMBA_CPU_FEATURES=",".join("+" + name for name in SAPPHIRE_RAPIDS.split(",")),
        NUMBA_CACHE_DIR=str(tmp_path),
    )
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    kinds = {"tileloadd": "l", "tdpbusd": "p"}
    walk = "".join(kinds.get(line.split("\t")[0], "") for line in lines)
    assert re.fullmatch("(llplplplplplp|lllpp)+", walk), walk
    products = [line for line in lines if line.startswith("tdpbusd")]
    sums = [int(line[-1]) for line in products]
    assert [0, 1, 2, 5, 4, 3] in [sums[i : i + 6] for i in range(len(sums))]
    assert any(line.startswith("ldtilecfg") for line in lines)
    assert any(line.startswith("tilerelease") for line in lines)
