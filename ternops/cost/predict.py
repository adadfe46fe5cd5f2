"""How fast, and at what energy, a ternary model runs on a machine that need not be here."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ternops.cost.energy import energy_terms
from ternops.cost.hardware import Hardware
from ternops.cost.latency import Timed, timed
from ternops.cost.workload import FP16, KINDS, PHASES, Workload, weight_bytes, workload
from ternops.decoder.cache import kv_cache_bytes
from ternops.decoder.config import Config

_MAX_SEQUENCES = 2**16


@dataclass(frozen=True)
class Prediction:
    """What `predict` gives.

    parts: by name. terms: joules a token by where they go, empty if the profile has no power.
    unknown: kernels that the profile has no rate of; if there are any, `tokens_per_second` is the
    most that the memory allows.
    """

    tokens_per_second: float
    parts: Mapping[str, Timed]
    terms: Mapping[str, float]
    unknown: tuple[str, ...]
    work: Workload

    @property
    def ms_per_token(self) -> float:
        """Milliseconds of a token."""
        return 1e3 / self.tokens_per_second

    @property
    def joules_per_token(self) -> float:
        """All terms together; NaN if the profile has no power."""
        return math.fsum(self.terms.values()) if self.terms else math.nan

    @property
    def bound(self) -> str:
        """What most of the time goes to: "memory", "compute", "prepare", "barriers" or "fixed"."""
        seconds: dict[str, float] = {}
        for part in self.parts.values():
            seconds[part.bound] = seconds.get(part.bound, 0.0) + part.seconds
        return max(seconds, key=lambda name: seconds[name])


def predict(
    config: Config, hardware: Hardware, encoding: str = "base3", threads: int | None = None,
    phase: str = "decode", context: int = 128, batch: int = 1,
) -> Prediction:  # fmt: skip
    """Milliseconds, tokens/s and joules a token of a decoder on a machine.

    config: the decoder's layout. encoding: of its linear layers, or "fp16"; the head is fp16.
    threads: by default one a core. phase: "decode", where every one of `batch` sequences has
    `context` positions before the token, or "prefill", where it reads a prompt of `context`.

    Raises ValueError with one line for what cannot be: an unknown encoding, more threads than
    cores, a context beyond the model's, a model larger than the machine's memory; TypeError for
    another config or hardware.
    """
    _check_type("config", config, Config)
    _check_type("hardware", hardware, Hardware)
    _check_choice("encoding", encoding, KINDS)
    _check_choice("phase", phase, PHASES)
    threads = hardware.threads if threads is None else threads
    threads = _count("threads", threads, hardware.threads, f", the cores of {hardware.name}")
    # A token of its own comes behind the context.
    most = config.context - (phase == "decode")
    context = _count("context", context, most, ", the model's")
    batch = _count("batch", batch, _MAX_SEQUENCES)
    positions = context + (phase == "decode")  # the token's own
    _check_memory(
        hardware, weight_bytes(config, encoding) + batch * kv_cache_bytes(config, FP16, positions)
    )
    work = workload(config, encoding, phase, context, batch)
    parts = timed(work, hardware, threads)
    seconds = math.fsum(part.seconds for part in parts)
    if not 0 < seconds < math.inf:
        raise ValueError(f"{hardware.name}: a pass would take {seconds} s, expected a finite time")
    terms = energy_terms(parts, seconds, hardware, threads)
    unknown = dict.fromkeys(each.part.kernel for each in parts if not each.known)
    return Prediction(
        work.tokens / seconds, {each.part.name: each for each in parts},
        {name: joules / work.tokens for name, joules in terms.items()}, tuple(unknown), work,
    )  # fmt: skip


def _check_type(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name}={reprlib.repr(value)}: expected a {kind.__name__}")


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}={reprlib.repr(value)}: expected {' or '.join(choices)}")


def _count(name: str, value: Any, most: int, whose: str = "") -> int:
    """As a plain integer: those of NumPy would overflow."""
    is_count = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_count or not 0 < value <= most:
        raise ValueError(f"{name}={reprlib.repr(value)}: expected 1 to {most}{whose}")
    return int(value)


def _check_memory(hardware: Hardware, needed: int) -> None:
    if needed > hardware.memory:
        raise ValueError(
            f"{hardware.file or hardware.name}: memory: the model needs {needed / 1e9:.1f} GB, "
            f"has {hardware.memory / 1e9:.1f}"
        )
