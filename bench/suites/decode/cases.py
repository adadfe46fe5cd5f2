"""What bench.decode times: decoders on random models, ready to run."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

import ternops
from bench.core.envelope import TIER
from bench.core.measure import Case, interleave
from bench.core.process import WorkerError
from bench.limits.levels import bandwidth, probe_cases
from bench.suites.decoders import llama, release
from ternops.cost.probes import MAX_PROBED, Reader
from ternops.decoder import Batch, Config, Model
from ternops.decoder.cache import kv_cache_bytes
from ternops.decoder.formats.loading import open_checkpoint
from ternops.decoder.model import Session
from ternops.decoder.records import PARTS
from ternops.decoder.weights import HalfMatrix, Layer, Weights, random_weights
from ternops.matrix import TernaryMatrix
from ternops.memory import Arena, aligned_empty

#: Our encoding, whatever "auto" would take for a size.
ENCODING = "base3"
#: What llama.cpp's linear layers are held in, and its embedding and head.
LLAMA_LINEAR, LLAMA_HEADS = ("tq1_0", "tq2_0"), ("f16", "q8_0", "q6_k", "q4_0")
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
        """Time the cases in turn, keep them, and let go of what they work on."""
        interleave(cases, rounds or self.rounds)
        self.cases += [each for each in cases if not each.failure]
        release(cases)


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
        head = self.model.weights.head
        row = head.nbytes // head.shape[0]
        rescored = self.session.rescored * row // max(1, self.session.screened)
        config, kind = self.model.config, self.model.cache
        cache = sum(kv_cache_bytes(config, kind, at) for at in (1, self.tokens)) // 2
        return self.model.bytes_per_token - self.session.bytes_saved + rescored + cache

    def case(self, name: str) -> Case:
        """What times it, a token its unit."""
        metadata = {"ternops_threads": self.model.threads, "ternops_tier": TIER}
        return Case(name, self, self.tokens, metadata)

    def probes(self, what: str) -> list[Case]:
        """The ways to read as many bytes as a token needs."""
        self()  # so that it is known how many rows are rescored
        return probe_cases(what, Reader(min(MAX_PROBED, self.nbytes)), self.model.threads)

    def parts(self) -> dict[str, float]:
        """Milliseconds of a token by part, over the tokens once more."""
        profile = self.session.profile()
        self()
        milliseconds = profile / (1e6 * self.tokens)
        return dict(zip(PARTS, milliseconds.tolist(), strict=True))

    def breakdown(self) -> str:
        """The same in words."""
        parts = (f"{name} {milliseconds:.3f}" for name, milliseconds in self.parts().items())
        return f"ms a token: {', '.join(parts)}"


def our_decoder(config: Config, options: DecodeOptions, head: str = "fp16") -> OurDecoder:
    """Our decoder on random weights, which reads all of them: no gate was trained to be 0."""
    model = Model(gaussian(config), options.threads, head, sparse="never")
    return OurDecoder(model, options.tokens)


def beside_limit(
    decoders: dict[str, OurDecoder], options: DecodeOptions
) -> dict[str, tuple[Case, float]]:
    """Each decoder's case, by its name, measured in turn with its probes, and their bandwidth."""
    cases = {name: (each.case(name), each.probes(name)) for name, each in decoders.items()}
    options.measure([each for case, probes in cases.values() for each in (case, *probes)])
    return {name: (case, bandwidth(probes, case.values)) for name, (case, probes) in cases.items()}


def gaussian(config: Config, encoding: str = ENCODING, group: int = 0) -> Weights:
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
    return replace(random_weights(config, encoding, group=group), embedding=table, head=table)


#: Rows of `gate` and of `up` that are 0, so that of the others, half of whose gates are not
#: positive, about as many are left as of the tiny checkpoint: 42% of gates, 22% of codes.
_NO_GATE, _NO_UP = 0.16, 0.21
#: Matrices before they repeat, each in memory of its own.
_DISTINCT = 4


def trained_like(weights: Weights) -> Weights:
    """The weights with other ones for gate and up: every row is random, and some are 0."""
    random, arena, config = np.random.default_rng(0), Arena(), weights.config
    made: dict[str, list[TernaryMatrix]] = {"gate": [], "up": []}
    for name, share in (("gate", _NO_GATE), ("up", _NO_UP)):
        for _ in range(_DISTINCT):
            trits = random.integers(-1, 2, (config.ffn, config.hidden), np.int8)
            trits[random.random(config.ffn) < share] = 0
            scale = np.float32(1 / config.hidden**0.5)
            made[name].append(ternops.pack(trits, encoding=ENCODING, scale=scale))
    layers = []
    for number, layer in enumerate(weights.layers):
        changed = {name: each[number % _DISTINCT].moved(arena) for name, each in made.items()}
        layers.append(Layer({**layer.linear, **changed}, layer.norms))
    return replace(weights, layers=layers)


def together(model: Model, size: int, tokens: int) -> Case:
    """`tokens` tokens of each of `size` sequences; the first one of each is not timed."""
    batch = Batch(model, size)

    def admit() -> None:
        for i in range(size):
            batch.add([i + 1], tokens + 1, stop_at_eos=False)
        batch.step()

    def run() -> None:
        for _ in range(tokens):
            batch.step()
        assert not len(batch)

    return Case(f"decode 700M {ENCODING}, batch {size}", run, size * tokens, before=admit)


def fastest_settings(config: Config, linear: str, options: DecodeOptions) -> tuple[str, int]:
    """The type of embedding and head, and the threads, with which llama.cpp generates fastest.

    Raises WorkerError, as the last one did, if it does with none.
    """
    failures: list[WorkerError] = []

    def seconds(head: str, threads: int) -> float:
        """Of a short generation, the better of two."""
        with ExitStack() as stack:
            decoder, _ = llama(config, linear, head, threads, stack)
            try:
                decoder.wake()
                return min(decoder.generate(_SCOUTED) for _ in range(2))
            except WorkerError as error:
                failures.append(error)
                return math.inf

    found = {head: seconds(head, options.threads) for head in LLAMA_HEADS}
    head = min(found, key=found.__getitem__)
    if math.isinf(found[head]):
        raise failures[-1]
    # A second thread does not always pay.
    return head, 1 if seconds(head, 1) < found[head] else options.threads


#: Text like code: calls that differ in a word.
_TEXT = "def main():\n    parser = argparse.ArgumentParser()\n" + "".join(
    f"    parser.add_argument('--{word}', action='store_true', help='{word} the files')\n"
    for word in ("copy", "move", "delete", "list")
)


def lookup_prompt() -> list[int]:
    """The tokens of the text, for the tiny checkpoint's vocabulary."""
    return list(open_checkpoint().tokenizer().encode(_TEXT).ids)


class Drafted:
    """Generates after `lookup_prompt`, which has been read before, with drafts from it."""

    def __init__(self, draft: int, options: DecodeOptions) -> None:
        model = Model.from_pretrained(threads=options.threads)
        session, tokens = Session(model), lookup_prompt()
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
