"""The amx tier: its arithmetic emulated, its instructions compiled for a CPU that has them."""

from __future__ import annotations

import re

import pytest

from ternops.isa import detect
from ternops.simd import host
from tests.helpers import processes

WORKS = """
import numpy as np
import ternops
from ternops.kernels import reference
from ternops.isa import HAS_TILES, detect
from tests.helpers import cases
from ternops.decoder import Session
from tests.helpers.small_models import small_config, small_model

assert detect.TIER.name == "amx" and HAS_TILES
for encoding in ("two_bit", "base3"):
    for shape in ((1, 1), (15, 63), (16, 64), (33, 320), (70, 700), (130, 4099), (65, 9000)):
        trits = cases.trits(*shape)
        matrix = ternops.pack(trits, cases.scales(shape[0])["rows"], encoding)
        for m in (16, 17, 31, 32, 33, 70):
            x = cases.activations(m, shape[1])
            expected = reference.matmul_int32(x, trits)
            for threads in (1, 2):
                found = ternops.matmul(x, matrix.unscaled.T, threads=threads)
                assert cases.same_bits(found, expected), (encoding, shape, m, threads)
            scaled = expected.astype(np.float32) * matrix.scale
            assert cases.same_bits(ternops.matmul(x, matrix.T), scaled), (encoding, shape, m)
    trits = np.ones((40, 2**15 + 1), np.int8)
    x = np.full((33, 2**15 + 1), -128, np.int8)
    expected = reference.matmul_int32(x, trits)
    assert cases.same_bits(x @ ternops.pack(trits, encoding=encoding).T, expected), encoding

    # A prompt, read by tiles, against the same tokens one by one.
    model = small_model(small_config("hidden 257", "bitnet", context=80), encoding)
    tokens, session = list(range(33)) + list(range(30)), Session(model)
    expected = np.stack([session.step(token).copy() for token in tokens])
    for lengths in ((63,), (17, 16, 30)):
        session, found = Session(model), []
        for count in lengths:
            part = tokens[session.position : session.position + count]
            found += list(session.extend(part, count).copy())
        assert cases.same_bits(np.stack(found), expected), (encoding, lengths)
print("exact")
"""

#: What the kernel needs to be compiled, not run, for a CPU with AMX.
ASSEMBLY = """
import os, sys
from tests.programs import emulated_amx
emulated_amx.install(instructions=False)
from ternops.kernels.gemm import gemm_two_bit
print(gemm_two_bit.assembly())
"""
SAPPHIRE_RAPIDS = (
    "avx2,f16c,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi,amx-tile,amx-int8"
)

pytestmark = pytest.mark.skipif(host.machine() not in ("x86_64", "amd64"), reason="not an x86 CPU")


def test_products_of_tiles_are_exact(tmp_path):
    """Everything but the instructions themselves, which are replaced by what they mean."""
    if reason := processes.lacking("avx512vbmi"):
        pytest.skip(f"the emulation runs on AVX-512: {reason}")
    script = tmp_path / "works.py"
    script.write_text(WORKS)
    # A cache of its own: the emulated registers' address is part of the code.
    done = processes.python(
        "-m", "tests.programs.emulated_amx", str(script), NUMBA_CACHE_DIR=str(tmp_path / "cache")
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.split() == ["exact"]


@pytest.mark.skipif(
    "amx" not in [tier.name for tier in detect.available()],
    reason="this CPU has no AMX: what runs here is the emulation",
)
def test_products_of_tiles_are_exact_on_this_cpu():
    """The same on the real instructions."""
    assert processes.run_code(WORKS, TERNOPS_ISA="amx").split() == ["exact"]


def test_the_loop_is_four_products_of_four_tiles(tmp_path):
    """Compiled for Sapphire Rapids: each tile that is loaded serves two products, nothing else."""
    text = processes.run_code(
        ASSEMBLY,
        NUMBA_CPU_NAME="sapphirerapids",
        NUMBA_CPU_FEATURES=",".join("+" + name for name in SAPPHIRE_RAPIDS.split(",")),
        NUMBA_CACHE_DIR=str(tmp_path),
    )
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    products = [line for line in lines if line.startswith("tdpbusd")]
    loads = [line for line in lines if line.startswith("tileloadd")]
    assert products
    assert len(products) == len(loads)
    assert len(products) % 4 == 0
    sums = [re.findall(r"%tmm\d", line)[-1] for line in products[:4]]
    assert sums == ["%tmm0", "%tmm1", "%tmm2", "%tmm3"]
    assert any(line.startswith("ldtilecfg") for line in lines)
    assert any(line.startswith("tilerelease") for line in lines)
