"""Decoders that take turns: llama.cpp's with random models, and how all of them are timed."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.core.measure import Case, nothing
from bench.engines import llama_cpp, settle
from bench.engines.llama_process import LlamaProcess
from bench.models import random_gguf
from ternops.decoder import Config

#: Tokens of a prompt whose prefill is measured.
PROMPT = 512


def llama(
    config: Config, linear: str, head: str, threads: int, stack: ExitStack
) -> tuple[LlamaProcess, float]:
    """llama.cpp in a process of its own, with a random model, and what its rates are to be
    multiplied with; ImportError if there is none."""
    llama_cpp.about()
    layout, scale = random_gguf.for_llama_cpp(config, linear, head)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    path = stack.enter_context(random_gguf.random_gguf(folder, layout, linear, head))
    decoder = LlamaProcess(path, threads, PROMPT)
    stack.callback(decoder.close)
    return decoder, scale


def llama_case(name: str, decoder: LlamaProcess, reads: bool, tokens: int, **metadata: str) -> Case:
    """llama.cpp's prompt, or its generation."""
    run = decoder.prompt if reads else decoder.generate
    return Case(
        name, partial(run, tokens), tokens, dict(metadata),
        before=partial(settle, decoder.wake), has_clock=True,
    )  # fmt: skip


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
