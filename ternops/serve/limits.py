"""How much a server takes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """parallel: sequences decoded together. queue: those that may wait beside them. kv_memory: of
    their keys and values, as of `Batch`. max_body: bytes of a request. timeout: seconds of a
    request. grace: seconds that requests under way get at the end. Raises ValueError for what is
    out of range."""

    parallel: int = 8
    queue: int = 64
    kv_memory: int | str | None = None
    max_body: int = 4 << 20
    timeout: float = 600.0
    grace: float = 30.0

    def __post_init__(self) -> None:
        for name, least in (("parallel", 1), ("max_body", 1), ("queue", 0), ("grace", 0)):
            if not least <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}={getattr(self, name)}: expected {least} or more")
        if not 0 < self.timeout < float("inf"):
            raise ValueError(f"timeout={self.timeout}: expected more than 0")
