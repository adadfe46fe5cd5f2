"""llama.cpp's decoder in a process of its own, which may crash without harm to the one that asks.

The time is taken there. After each run its threads have gone to sleep before it answers.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from bench.core.measure import nothing
from bench.core.process import Conversation, WorkerError, converse
from bench.engines import settle
from bench.engines.llama_cpp import LlamaDecoder

#: What a process can be asked, and what that is called.
_PREFILL, _DECODE, _WAKE = "prompt", "generate", "wake"
_WORDS = {_PREFILL: "prefill", _DECODE: "decode", _WAKE: "decode"}


class LlamaProcess:
    """`LlamaDecoder`, with its arguments and methods, in a process of its own.

    For AMX, llama.cpp keeps weights in another order ("extra buffers"), and some builds of it crash
    in products with them. What dies in its first prompt or generation is therefore started once
    more without them (the model's parameter `use_extra_bufts`), and `remark` says so.

    Raises WorkerError, with the reason in a line, for whatever goes wrong there.
    """

    def __init__(self, path: Path, threads: int, context: int) -> None:
        self._arguments = str(path), str(threads), str(context)
        self._extra = True
        self._done: set[str] = set()
        #: What a reader must know of its figures, or "".
        self.remark = ""
        self._start()

    def prompt(self, tokens: int) -> float:
        """Seconds to process a prompt ("pp"), to the logits of its last token."""
        return self._run(_PREFILL, tokens)

    def generate(self, tokens: int) -> float:
        """Seconds to generate tokens one by one ("tg"), each with its logits."""
        return self._run(_DECODE, tokens)

    def wake(self) -> None:
        """Let its threads, and no others, be awake: what is run next is timed."""
        self._run(_WAKE, 1)

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def _start(self) -> None:
        extra = "extra" if self._extra else "plain"
        self._process = Conversation("bench.engines.llama_process", *self._arguments, extra)

    def _run(self, what: str, tokens: int) -> float:
        try:
            seconds = self._process.ask([what, tokens])
        except WorkerError as error:
            died = f"{error} in {_WORDS[what]} {tokens}"
            # What has worked once does not die of the order of weights, and its values must not
            # come from two settings.
            if not self._process.is_dead or not self._extra or what in self._done:
                raise WorkerError(f"llama.cpp: {died}") from None
            self.close()
            self._extra = False
            self.remark = f"llama.cpp without extra buffers; with them {died}"
            self._start()
            return self._run(what, tokens)
        self._done.add(what)
        return float(seconds)


def _main(path: str, threads: str, context: str, extra: str) -> None:
    decoder = None

    def answer(request: tuple[str, int]) -> float:
        nonlocal decoder
        if decoder is None:  # here, where what it raises is an answer
            decoder = LlamaDecoder(Path(path), int(threads), int(context), extra == "extra")
        what, tokens = request
        if what == _WAKE:
            settle(partial(decoder.generate, tokens))
            return 0.0
        seconds = decoder.prompt(tokens) if what == _PREFILL else decoder.generate(tokens)
        settle(nothing)
        return seconds

    converse(answer)


if __name__ == "__main__":
    _main(*sys.argv[1:])
