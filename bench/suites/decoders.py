"""Decoders that take turns: llama.cpp's with random models, and how all of them are timed."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.core.measure import Case, nothing
from bench.engines import settle
from bench.engines.llama_cpp import LlamaDecoder
from bench.models import random_gguf
from ternops.decoder import Config

#: Tokens of a prompt whose prefill is measured.
PROMPT = 512


def llama(
    config: Config, linear: str, head: str, threads: int, stack: ExitStack
) -> tuple[LlamaDecoder, float]:
    """llama.cpp with a random model, and what its rates are to be multiplied with."""
    layout, scale = random_gguf.for_llama_cpp(config, linear, head)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    path = stack.enter_context(random_gguf.random_gguf(folder, layout, linear, head))
    decoder = LlamaDecoder(path, threads, PROMPT)
    stack.callback(decoder.close)
    return decoder, scale


def settled(case: Case, warm: bool = True) -> Case:
    """The same, timed when the threads of other engines have gone to sleep.

    warm: whether the case's own threads are woken up then, by running it.
    """
    case.before = partial(settle, case.run if warm else nothing)
    return case


def release(cases: list[Case]) -> None:
    """Let go of what the cases work on."""
    for case in cases:
        case.release()
