"""What bench.decode times: our decoder and llama.cpp's, on random models, ready to run."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from bench.core.envelope import TIER
from bench.core.measure import Case, interleave
from bench.engines import settle
from bench.engines.llama_cpp import LlamaDecoder
from bench.limits.probes import bandwidth, probe_cases
from bench.models import random_gguf
from bench.suites.decode.text import prompt
from ternops.cost.probes import MAX_PROBED, Reader
from ternops.decoder import Batch, Config, Model
from ternops.decoder.cache import kv_cache_bytes
from ternops.decoder.model import Session
from ternops.decoder.records import PARTS
from ternops.decoder.weights import HalfMatrix, Weights, random_weights
from ternops.memory import aligned_empty

#: Our encoding, whatever "auto" would take for a size.
ENCODING = "base3"
#: What llama.cpp's linear layers are held in, and its embedding and head.
LLAMA_LINEAR, LLAMA_HEADS = ("tq1_0", "tq2_0"), ("f16", "q8_0", "q6_k", "q4_0")
PROMPT = 512
#: Tokens that llama.cpp generates to find out which of its settings is the fastest.
_SCOUTED = 12


@dataclass
class DecodeOptions:
    """How much to measure. version: of llama.cpp, with the features of its build.

    notes: a line for each thing that was left out, and why.
    """

    threads: int
    tokens: int
    rounds: int
    version: str = ""
    cases: list[Case] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def measure(self, cases: list[Case], rounds: int | None = None) -> None:
        """Time the cases in turn and keep them."""
        interleave(cases, rounds or self.rounds)
        self.cases += cases


class OurDecoder:
    """Decodes `tokens` tokens from an empty context, greedily, as llama-bench's "tg" does."""

    def __init__(self, model: Model, tokens: int) -> None:
        self.model, self.tokens = model, tokens
        self.session = Session(model)

    def __call__(self) -> None:
        self.session.position = 0
        for token in range(self.tokens):
            int(np.argmax(self.session.step(token, exact_top=1)))

    @property
    def nbytes(self) -> int:
        """Bytes of a token: linear layers, head, and the mean of keys and values read."""
        row = self.model.weights.head.bits[0].nbytes
        rescored = self.session.rescored * row // max(1, self.session.screened)
        cache = kv_cache_bytes(self.model.config, self.model.cache, 1) * (self.tokens + 1) // 2
        return self.model.bytes_per_token + rescored + cache


def our_decoder(config: Config, options: DecodeOptions, head: str = "fp16") -> OurDecoder:
    """Our decoder on random weights."""
    return OurDecoder(Model(gaussian(config), options.threads, head), options.tokens)


def case_of(name: str, decoder: OurDecoder, options: DecodeOptions) -> Case:
    """What times a decoder, a token its unit."""
    metadata = {"ternops_threads": options.threads, "ternops_tier": TIER}
    return Case(name, decoder, decoder.tokens, metadata)


def probes_of(what: str, decoder: OurDecoder, options: DecodeOptions) -> list[Case]:
    """The ways to read as many bytes as a token of the decoder needs."""
    decoder()  # so that it is known how many rows are rescored
    return probe_cases(what, Reader(min(MAX_PROBED, decoder.nbytes)), options.threads)


def beside_limit(name: str, decoder: OurDecoder, options: DecodeOptions) -> tuple[Case, float]:
    """A decoder's case, measured in turn with its probes, and their bandwidth."""
    case, probes = case_of(name, decoder, options), probes_of(name, decoder, options)
    options.measure([case, *probes])
    limit = bandwidth(probes, case.values)
    release([case, *probes])
    return case, limit


def breakdown(decoder: OurDecoder) -> str:
    """Milliseconds of a token by part, over the decoder's tokens once more."""
    profile = decoder.session.profile()
    decoder()
    each = profile / (1e6 * decoder.tokens)
    parts = (f"{name} {value:.3f}" for name, value in zip(PARTS, each, strict=True))
    return f"ms a token: {', '.join(parts)}"


def gaussian(config: Config) -> Weights:
    """Random weights whose embedding and head have independent Gaussian rows.

    Those of `random_weights` repeat, and a screened head would have to compute every repetition.
    """
    random = np.random.default_rng(0)
    bits = aligned_empty((config.vocabulary, config.hidden), np.uint16)
    for start in range(0, config.vocabulary, 4096):
        rows = bits[start : start + 4096]
        values = random.standard_normal(rows.shape, np.float32) / np.float32(config.hidden**0.5)
        rows[...] = values.astype(np.float16).view(np.uint16)
    table = HalfMatrix(bits, config.hidden, is_bf16=False)
    return replace(random_weights(config, ENCODING), embedding=table, head=table)


class Together:
    """Decodes `tokens` tokens of each of `size` sequences."""

    def __init__(self, model: Model, size: int, tokens: int) -> None:
        self._batch, self._size, self._tokens = Batch(model, size), size, tokens

    def admit(self) -> None:
        """Let all of them in; their first token is not timed."""
        for i in range(self._size):
            self._batch.add([i + 1], self._tokens + 2, stop_at_eos=False)
        self._batch.step()

    def __call__(self) -> None:
        for _ in range(self._tokens):
            self._batch.step()
        assert not len(self._batch)


def fastest_settings(config: Config, linear: str, options: DecodeOptions) -> tuple[str, int]:
    """The type of embedding and head, and the threads, with which llama.cpp generates fastest."""
    seconds = {kind: _seconds(config, linear, kind, options.threads) for kind in LLAMA_HEADS}
    kind = min(seconds, key=lambda each: seconds[each])
    # A second thread does not always pay.
    alone = _seconds(config, linear, kind, 1)
    return kind, 1 if alone < seconds[kind] else options.threads


def _seconds(config: Config, linear: str, head: str, threads: int) -> float:
    """Of a short generation by llama.cpp, the better of two."""
    with ExitStack() as stack:
        decoder, _ = llama(config, linear, head, threads, stack)
        settle(partial(decoder.generate, 1))
        return min(decoder.generate(_SCOUTED) for _ in range(2))


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


def settled(case: Case) -> Case:
    """The same, timed when the threads of other engines have gone to sleep."""
    run = case.run
    case.before = lambda: settle(run)
    return case


def release(cases: list[Case]) -> None:
    """Let go of what the cases work on."""
    for case in cases:
        case.release()


class Drafted:
    """Generates behind `lookup_text`, which has been read before."""

    def __init__(self, draft: int, options: DecodeOptions) -> None:
        model = Model.from_pretrained(threads=options.threads)
        session, tokens = Session(model), prompt()
        session.read(tokens)
        most = 8 * options.tokens
        self.output: list[int] = []

        def run() -> None:
            self.output = list(model.generate(
                tokens, most, stop_at_eos=False, prompt_lookup=draft, session=session
            ))  # fmt: skip

        self.case = Case(f"tiny, drafts of up to {draft} tokens", run, most)


def first_token(path: Path, threads: int) -> float:
    """Seconds from starting Python to a model's first token."""
    code = (
        "import sys; from ternops.decoder import Model; "
        f"model = Model.from_pretrained(sys.argv[1], threads={threads}); "
        "next(model.generate([1]))"
    )
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    return time.perf_counter() - begin


def read_once(path: Path) -> float:
    """Seconds to read a file from beginning to end."""
    begin = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(1 << 22))
        while file.readinto(buffer):
            pass
    return time.perf_counter() - begin
