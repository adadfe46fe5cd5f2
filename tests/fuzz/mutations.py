"""Other inputs from good ones: of bytes, of JSON, and of safetensors files around JSON."""

from __future__ import annotations

import contextlib
import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ternops.checksum import of_content

#: Numbers at which formats, dtypes and allocations end.
NUMBERS = (
    0, 1, 2, 3, 7, 8, 31, 32, 33, 63, 64, 127, 128, 255, 256, 2**15, 2**16, 2**24 - 1, 2**31 - 1,
    2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, *NUMBERS, -1, -(2**31), -(2**63), 2**64, 10**30, 0.0, -0.5, 1e-45, 1e308,
    float("nan"), float("inf"), "", "a", "\0", "\ud800", "é\u2028", "x" * 300, "%s%n{0}{{ 1 }}",
    "../../etc/passwd", "/dev/zero", "-1", "1e999", [], [[]], [0], [None], {}, {"": None},
)  # fmt: skip


def of_bytes(data: bytes, random: random.Random, most: int = 1 << 20) -> bytes:
    """One to four edits: bits, bytes, numbers of 4 and 8 bytes, pieces that are cut, doubled,
    exchanged or moved."""
    edited = bytearray(data)
    for _ in range(random.randint(1, 4)):
        _edit(edited, random)
    return bytes(edited[:most])


def _edit(data: bytearray, random: random.Random) -> None:
    place = random.randrange(len(data) + 1)
    kind = random.randrange(8)
    if kind == 0:
        data.insert(place, random.randrange(256))
    elif not data or place == len(data):
        data += random.randbytes(random.randint(1, 16))
    elif kind == 1:
        data[place] ^= 1 << random.randrange(8)
    elif kind == 2:
        data[place] = random.choice((0, 1, 127, 128, 255, random.randrange(256)))
    elif kind == 3:
        size, form = random.choice(((4, "<I"), (8, "<Q"), (2, "<H")))
        number = random.choice(NUMBERS) + random.randint(-1, 1)
        data[place : place + size] = struct.pack(form, number % 2 ** (8 * size))
    elif kind == 4:
        del data[place:]
    elif kind == 5:
        del data[place : place + random.randint(1, 32)]
    else:
        piece = data[place : place + random.randint(1, 64)]
        other = random.randrange(len(data) + 1)
        data[other : other + (len(piece) if kind == 6 else 0)] = piece


def of_text(words: Sequence[str]) -> Callable[[bytes, random.Random], bytes]:
    """Edits of bytes, and words of a language put in or in the place of something."""

    def mutate(data: bytes, random: random.Random) -> bytes:
        if random.random() < 0.3:
            return of_bytes(data, random, 1 << 14)
        edited = bytearray(data)
        for _ in range(random.randint(1, 3)):
            place = random.randrange(len(edited) + 1)
            end = place + random.choice((0, 0, 1, 5, 20))
            edited[place:end] = random.choice(words).encode("utf-8", "surrogatepass")
        return bytes(edited[: 1 << 14])

    return mutate


def of_json(data: bytes, random: random.Random) -> bytes:
    """Edits of the value that JSON holds, or, of one in ten and of what is no JSON, of bytes."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return of_bytes(data, random)
    if random.random() < 0.1:
        return of_bytes(data, random)
    for _ in range(random.randint(1, 3)):
        value = of_value(value, random)
    return json.dumps(value).encode()


def of_value(value: Any, random: random.Random) -> Any:
    """Another value of JSON: one of its nodes replaced, left out, doubled, renamed or nested."""
    if not isinstance(value, dict | list) or not value or random.random() < 0.02:
        return _other(value, random)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = random.choice(keys)
    copy = value.copy()
    kind = random.random()
    if kind < 0.55:
        copy[key] = of_value(copy[key], random)
    elif kind < 0.65:
        del copy[key]
    elif kind < 0.75:
        copy[key], copy[keys[-1]] = copy[keys[-1]], copy[key]
    elif kind < 0.85:
        if isinstance(copy, dict):
            name = str(key)
            copy[random.choice((name + "x", "", name.upper(), "0"))] = copy.pop(key)
        else:
            copy += [copy[key]] * random.choice((1, 2, 50))
    elif kind < 0.9:
        copy[key] = [copy[key]] if random.random() < 0.5 else {"a": copy[key]}
    else:
        copy[key] = _other(copy[key], random)
    return copy


def _other(value: Any, random: random.Random) -> Any:
    if isinstance(value, int | float) and random.random() < 0.4:
        return random.choice((-value, value + 1, value - 1, value * 2, float(value), str(value)))
    if isinstance(value, str) and random.random() < 0.5:
        raw = of_bytes(value.encode("utf-8", "surrogatepass"), random, 4000)
        return raw.decode("utf-8", random.choice(("replace", "surrogateescape")))
    return random.choice(VALUES)


def of_safetensors(
    seal: Callable[[dict[str, Any], bytes], None] = lambda header, data: None,
) -> Callable[[bytes, random.Random], bytes]:
    """Edits of a header, of the tensors, or of any bytes; `seal` puts checksums right in place."""

    def mutate(data: bytes, random: random.Random) -> bytes:
        if random.random() < 0.2:
            return of_bytes(data, random)
        size = int.from_bytes(data[:8], "little")
        try:
            header = json.loads(data[8 : 8 + size])
        except (ValueError, RecursionError):
            return of_bytes(data, random)
        body = data[8 + size :]
        if random.random() < 0.25:
            body = of_bytes(body, random)
        else:
            header = _of_header(header, random)
        if random.random() < 0.95:
            # A header that is too damaged has no checksum to put right.
            with contextlib.suppress(Exception):
                seal(header, body)
        text = json.dumps(header).encode()
        text += b" " * ((-8 - len(text)) % 64)  # as those of this package begin at a cache line
        return len(text).to_bytes(8, "little") + text + body

    return mutate


def seal_content(header: dict[str, Any], data: bytes) -> None:
    """Put the checksum of metadata and tensors right, of files that have one."""
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, stop = entry["data_offsets"]
            tensors[name] = np.frombuffer(data[start:stop], np.uint8)
    header["__metadata__"]["crc32"] = of_content(header["__metadata__"], tensors)


def _of_header(header: Any, random: random.Random) -> Any:
    """JSON within the metadata's strings is edited as JSON now and then."""
    for _ in range(random.randint(1, 2)):
        inner: Any = header.get("__metadata__") if isinstance(header, dict) else None
        texts = inner.items() if isinstance(inner, dict) else ()
        nested = [key for key, text in texts if isinstance(text, str) and text[:1] in ("{", "[")]
        if nested and random.random() < 0.4:
            key = random.choice(nested)
            text = of_json(inner[key].encode("utf-8", "replace"), random).decode("utf-8", "replace")
            header = {**header, "__metadata__": {**inner, key: text}}
        elif isinstance(inner, dict) and inner and random.random() < 0.3:
            header = {**header, "__metadata__": of_value(inner, random)}
        else:
            header = of_value(header, random)
    return header
