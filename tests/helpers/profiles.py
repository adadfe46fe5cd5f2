"""The profile of a machine that does not exist, as its file says it."""

from __future__ import annotations

from typing import Any


def figure(value: Any, unit: str, **more: Any) -> dict[str, Any]:
    """A value with its unit and source."""
    return {"value": value, "unit": unit, "source": "a test", **more}


PROFILE: dict[str, Any] = {
    "name": "A machine",
    "arch": "x86",
    "tiers": ["avx2"],
    "memory": figure(16, "GB"),
    "cores": [
        {"kind": "performance", "count": 2, "clock": figure(4.0, "GHz")},
        {"kind": "efficiency", "count": 4, "clock": figure(3.0, "GHz")},
    ],
    "levels": [
        {"name": "L2", "capacity": figure(1, "MiB"), "shared": False,
         "bandwidth": figure(100, "GB/s")},
        {"name": "L3", "capacity": figure(8, "MiB"), "shared": True,
         "bandwidth": figure([60, 120], "GB/s", threads=[1, 3])},
        {"name": "DRAM", "bandwidth": figure([20, 40], "GB/s", threads=[1, 2]),
         "energy": figure(100, "pJ/byte")},
    ],
    "barrier": {"time": figure([0.1, 0.3], "us", threads=[2, 6])},
    "power": {"idle": figure(5, "W"), "core": figure(6, "W")},
    "kernels": {"base3": {"gemv": figure(30, "MAC/cycle")}},
    "operations": {"node": "7 nm"},
}  # fmt: skip
