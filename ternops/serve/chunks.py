"""What all events of one streamed answer say alike, and the answer in one says as well."""

from __future__ import annotations

import secrets
import time
from typing import Any

from ternops.serve.answers import FinishReason, Usage
from ternops.serve.http import event


class Chunks:
    """Makes the events of an answer. prefix: of its id. kind: OpenAI's name of such an object.

    identity: id, created and model, of events and of an answer in one.
    """

    def __init__(self, prefix: str, kind: str, model: str, wants_usage: bool) -> None:
        self.identity: dict[str, Any] = {
            "id": f"{prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model,
        }  # fmt: skip
        self._head = {**self.identity, "object": kind}
        # Of all but the last one.
        self._usage = {"usage": None} if wants_usage else {}

    def of_choice(
        self, index: int, content: dict[str, Any], logprobs: Any, finish: FinishReason | None
    ) -> bytes:
        """What is new in one choice. logprobs: as JSON has them, None for none."""
        choice = {"index": index, **content, "logprobs": logprobs, "finish_reason": finish}
        return event({**self._head, "choices": [choice], **self._usage})

    def of_usage(self, usage: Usage) -> bytes:
        """The last one, where it is wanted."""
        return event({**self._head, "choices": [], "usage": usage.model_dump()})
