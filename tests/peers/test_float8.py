"""Floats of eight bits against torch's float8_e4m3fn and float8_e5m2, code for code."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.quantizers.fp8 import FORMATS, decode, encode
from tests.helpers import cases

pytestmark = pytest.mark.peers

NAMES = {"e4m3": "float8_e4m3fn", "e5m2": "float8_e5m2"}


@pytest.mark.parametrize("name", FORMATS)
def test_every_code(name, torch):
    codes = np.arange(256, dtype=np.uint8)
    theirs = torch.from_numpy(codes).view(getattr(torch, NAMES[name])).float().numpy()
    assert cases.same_bits(decode(codes, FORMATS[name]), theirs)


@pytest.mark.parametrize("name", FORMATS)
def test_every_float16_and_float32_between_all_neighbours(name, torch):
    """Within the format's range: beyond it torch has NaN or infinity, and we the largest number."""
    kind = FORMATS[name]
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    known = decode(np.arange(128, dtype=np.uint8), kind)
    known = known[np.isfinite(known)]
    middles = (known[:-1] + known[1:]) / 2
    near = [np.nextafter(middles, np.float32(end)) for end in (0, 1e9)]
    x = np.concatenate([halves, middles, -middles, *near])
    x = x[np.isfinite(x) & (np.abs(x) <= kind.most)]
    theirs = torch.from_numpy(x).to(getattr(torch, NAMES[name])).view(torch.uint8).numpy()
    assert (encode(x, kind) == theirs).all()
