"""What an ARM core has, as its system tells: LLVM's own list shows neither dotprod nor i8mm.

Sources: Linux, arch/arm64/include/uapi/asm/hwcap.h; Apple, "Determining instruction set
characteristics".
"""

from __future__ import annotations

import ctypes
import functools
import sys

#: LLVM's name -> the entry of the auxiliary vector and its bit (Linux), the sysctl (macOS).
_FEATURES = {
    "dotprod": (16, 1 << 20, b"hw.optional.arm.FEAT_DotProd"),
    "i8mm": (26, 1 << 13, b"hw.optional.arm.FEAT_I8MM"),
}


def _linux(entry: int, bit: int) -> bool:
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.restype, getauxval.argtypes = ctypes.c_ulong, (ctypes.c_ulong,)
    return bool(getauxval(entry) & bit)


def _macos(name: bytes) -> bool:
    value, size = ctypes.c_int(0), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
    failed = ctypes.CDLL(None).sysctlbyname(
        name, ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)
    )
    return not failed and value.value == 1


@functools.cache
def features() -> dict[str, bool]:
    """Whether this ARM core has each of the features that tiers ask for; False where unknown."""
    try:
        if sys.platform == "darwin":
            return {each: _macos(name) for each, (_, _, name) in _FEATURES.items()}
        return {each: _linux(entry, bit) for each, (entry, bit, _) in _FEATURES.items()}
    except (AttributeError, OSError, TypeError):  # neither: Windows, or a C library without it
        return dict.fromkeys(_FEATURES, False)
