"""Sizes of memory as people write them."""

from __future__ import annotations

import operator
import re

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?)(i?)(b?)\s*", re.IGNORECASE | re.ASCII)


def parse_size(name: str, size: int | str) -> int:
    """Bytes of 1200000000, "1.2GB", "1.2 g", "800 MB" (millions) or "1.5GiB" (of 1024^3).

    Raises TypeError and ValueError, naming the argument, for anything else.
    """
    if isinstance(size, str):
        match = _SIZE.fullmatch(size)
        if not match or (match[3] and not (match[2] and match[4])):
            raise ValueError(f"{name}={size!r}: expected a size as 800MB, 1.2GB or 1.5GiB")
        return int(float(match[1]) * (_BINARY if match[3] else _UNITS)[match[2].lower()])
    try:
        found = operator.index(size)
    except TypeError:
        raise TypeError(f"{name}={size!r}: expected bytes, or a size as '1.2GB'") from None
    if found < 0:
        raise ValueError(f"{name}={size!r}: expected 0 bytes or more")
    return found
