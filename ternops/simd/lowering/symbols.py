"""What an object file needs from outside: a few functions of the C library, and nothing else."""

from __future__ import annotations

import struct
from collections.abc import Iterator

#: What kernels may call; each is in every process.
ALLOWED = frozenset((
    "memset", "memcpy", "memmove", "sched_yield", "clock_gettime", "syscall", "fmaf",
))  # fmt: skip


def check_symbols(name: str, code: bytes) -> None:
    """Raise TypeError if a job's code needs more, as code does that can raise or that allocates."""
    if needless := sorted(set(undefined(code)) - ALLOWED):
        raise TypeError(f"{name}: kernels may not call {', '.join(needless)}")


def undefined(code: bytes) -> Iterator[str]:
    """The symbols that an ELF object of 64 bits does not define; of other formats none is known."""
    if code[:6] != b"\x7fELF\x02\x01":
        return
    (start,) = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", code, start + i * size) for i in range(count)]
    for _, kind, _, _, offset, length, link, *_ in sections:
        if kind == 2:  # a table of symbols
            names = sections[link][4]
            for at in range(offset + 24, offset + length, 24):  # the first is none
                name, _, _, section = struct.unpack_from("<IBBH", code, at)
                if section == 0:
                    end = code.index(b"\0", names + name)
                    yield code[names + name : end].decode()
