"""The file of a session: the tokens of a sequence and its cache, bit for bit, in safetensors.

The metadata are "format", "version", "model" (`ternops.decoder.deltas.fingerprint`), "weights"
("fp16" where these are floats, whose activations are not rounded, else "low-bit"), "cache" (the
kind), "delta" (a checksum of the fine-tune or the adapter, "" for the base), "messages" (those of a
chat, JSON) and "crc32", a hexadecimal checksum of all that. The tensors are

    tokens                   I32  those that the cache holds
    keys, values, ...        U8   what `Cache.content` gives
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from ternops.checksum import of_arrays, of_content
from ternops.decoder.chat import Message
from ternops.decoder.deltas import fingerprint_of
from ternops.decoder.formats.safetensors_file import Mapped, map_file
from ternops.decoder.session import Session
from ternops.decoder.whole_pages import fingerprint_of_parts
from ternops.files import replaced
from ternops.shown import shown

FORMAT, VERSION = "ternops session", "1"


def save_session(
    session: Session, path: str | os.PathLike[str], messages: Sequence[Message] = ()
) -> None:
    """Write a file, whole or not at all; raises OSError for what cannot be written.

    messages: what the tokens were made of, for who goes on with them.
    """
    session.catch_up()
    tensors: dict[str, npt.NDArray[Any]] = {
        "tokens": np.array(session.tokens, np.int32),
        **session.cache.content(session.position),
    }
    metadata = {**_identity(session), "messages": json.dumps(list(messages))}
    metadata["crc32"] = of_content(metadata, tensors)
    with replaced(path) as temporary:
        safetensors.numpy.save_file(tensors, temporary, metadata)


def load_session(session: Session, path: str | os.PathLike[str]) -> list[Message]:
    """Let a session be one that was saved, of the same model with the same kind of cache; gives the
    messages.

    The context may be another one, if the tokens fit. Raises FileNotFoundError if there is no such
    file, ValueError, naming it and what is wrong, if it is cut off, damaged, no such file, or of
    another model; the session is then as before.
    """
    where = Path(path)
    if not where.is_file():
        raise FileNotFoundError(f"session: {os.fspath(path)!r} is not a file")
    try:
        header, tensors = map_file(where)
        return _restore(session, header["__metadata__"], tensors)
    except ValueError as error:
        raise ValueError(f"session: {os.fspath(path)!r}: {error}") from None


def _identity(session: Session) -> dict[str, str]:
    """What a cache depends on, besides tokens."""
    model, delta = session.model, session.delta
    tuned = [] if delta is None else [
        packed.bytes for layer in model.deltas.of[delta].layers
        for packed in (matrix._packed for matrix in layer.values())
    ]  # fmt: skip
    tuned += [] if model.adapter is None else model.adapter.arrays
    if model.group is None:
        base = fingerprint_of(model.weights)
    else:
        base = fingerprint_of_parts(model.group, model.weights)
    return {
        "format": FORMAT, "version": VERSION, "model": base,
        "weights": "fp16" if model.encoding in ("fp16", "bf16") else "low-bit",
        "cache": model.cache, "delta": of_arrays(tuned) if tuned else "",
    }  # fmt: skip


def _restore(
    session: Session, metadata: dict[str, str], tensors: dict[str, Mapped]
) -> list[Message]:
    for key, value in _identity(session).items():
        if metadata.get(key) != value:
            raise ValueError(f"{key} {shown(metadata.get(key))}, expected {shown(value)}")
    if "tokens" not in tensors or tensors["tokens"].dtype != "I32":
        raise ValueError("tensor 'tokens' is missing")
    arrays = {name: tensor.bytes for name, tensor in tensors.items()}
    if metadata.get("crc32") != of_content(metadata, arrays):
        raise ValueError("its checksum does not match: it was damaged after it was written")
    tokens = arrays.pop("tokens").view(np.int32).tolist()
    config = session.model.config
    if len(tokens) > config.context:
        raise ValueError(f"{len(tokens)} tokens, expected at most the context of {config.context}")
    if tokens and not 0 <= min(tokens) <= max(tokens) < config.vocabulary:
        raise ValueError(
            f"tokens {min(tokens)} to {max(tokens)}, expected less than the vocabulary"
        )
    messages = _messages(metadata)
    session.restore(tokens, arrays)
    return messages


def _messages(metadata: dict[str, str]) -> list[Message]:
    try:
        messages = json.loads(metadata.get("messages", "[]"))
        for each in messages:
            if not (isinstance(each["role"], str) and isinstance(each["content"], str)):
                raise TypeError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError("messages: no JSON list of objects with role and content") from None
    found: list[Message] = messages
    return found
