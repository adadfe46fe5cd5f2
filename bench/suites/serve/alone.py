"""The library without a server, in a process of its own: what HTTP is compared with.

Asked ["generate", body] it answers [seconds of a token, text], asked ["batch", bodies] the tokens
a second of all of them. The first token of each sequence, with the prompt before it, is not timed.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from bench.core.process import converse
from ternops.decoder import Batch, Model, open_checkpoint
from ternops.decoder.text import TextDecoder

_TOKENS = "max_tokens"


def settings_of(body: dict[str, Any]) -> dict[str, Any]:
    """What `Model.generate` and `Batch.add` are told for a body."""
    found = {key: value for key, value in body.items() if key not in ("prompt", _TOKENS, "model")}
    return {**found, "max_new_tokens": body[_TOKENS]}


def _main(path: str, threads: str) -> None:
    tokenizer = open_checkpoint(path).tokenizer()
    model = Model.from_pretrained(path, threads=int(threads))

    def generate(body: dict[str, Any]) -> Any:
        prompt = tokenizer.encode(body["prompt"]).ids
        tokens, times = [], []
        for token in model.generate(prompt, **settings_of(body)):
            times.append(time.perf_counter())
            tokens.append(token)
        decoder = TextDecoder(tokenizer, prompt)
        text = "".join(map(decoder.push, tokens)) + decoder.end()
        return [(times[-1] - times[0]) / max(1, len(times) - 1), text]

    def together(bodies: list[dict[str, Any]]) -> Any:
        batch = Batch(model, len(bodies))
        for body in bodies:
            batch.add(tokenizer.encode(body["prompt"]).ids, **settings_of(body))
        waiting = set(range(len(bodies)))
        while waiting:
            waiting -= {each.request for each in batch.step()}
        begin, count = time.perf_counter(), 0
        while len(batch):
            count += sum(each.token is not None for each in batch.step())
        return count / (time.perf_counter() - begin)

    asked: dict[str, Any] = {"generate": generate, "batch": together}
    converse(lambda request: asked[request[0]](request[1]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
