"""What Prometheus is told. A server has a registry of its own: two of them share no numbers."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

#: Seconds, from a token of a small model to a long prompt of a large one.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The numbers of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "ternops_requests", "HTTP requests", ("route", "status"), registry=self._registry
        )
        self.prompt_tokens = Counter(
            "ternops_prompt_tokens", "Tokens of prompts", registry=self._registry
        )
        self.generated_tokens = Counter(
            "ternops_generated_tokens", "Tokens generated", registry=self._registry
        )
        self.cancelled = Counter(
            "ternops_cancelled", "Sequences whose client went", registry=self._registry
        )
        self.restarts = Counter(
            "ternops_engine_restarts", "Failures of the engine", registry=self._registry
        )
        self.first_token = self._seconds("ternops_time_to_first_token", "To a first token")
        self.steps = self._seconds("ternops_step", "A step, in which each sequence gets a token")
        self.durations = self._seconds("ternops_request", "A whole request")

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """A gauge whose value is asked for when Prometheus is."""
        Gauge(name, what, registry=self._registry).set_function(value)

    def text(self) -> tuple[bytes, str]:
        """The numbers, and the type of their text."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def _seconds(self, name: str, what: str) -> Histogram:
        return Histogram(f"{name}_seconds", what, buckets=_BUCKETS, registry=self._registry)
