"""What bench.decode measures, section by section: engines, cases, and the figures from them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from bench import random_gguf
from bench.engines import settle
from bench.engines.llama_cpp import Decoder as LlamaDecoder
from bench.figures import Figure
from bench.lookup_text import prompt
from bench.measure import Case, bandwidth, interleave, probe_cases
from bench.probes import Reader
from bench.shapes import SIZES
from bench.stats import speedup
from ternops.decoder import Batch, Config, Model
from ternops.decoder.cache import cache_bytes
from ternops.decoder.formats.convert import convert
from ternops.decoder.model import Session
from ternops.decoder.weights import HalfMatrix, Weights, random_weights
from ternops.memory import aligned_empty
from ternops.simd import targets

#: Our encoding, whatever "auto" would take for a size.
ENCODING = "base3"
#: What llama.cpp's linear layers are held in, and its embedding and head.
LLAMA_LINEAR, LLAMA_HEADS = ("tq1_0", "tq2_0"), ("f16", "q8_0", "q6_k", "q4_0")
#: No cache is larger, so a larger buffer would only read slower for want of address translation.
_MOST_PROBED = 1 << 30
_PROMPT = 512
#: Tokens that llama.cpp generates to find out which of its settings is the fastest.
_SCOUTED = 12
_BATCHES = (1, 2, 4, 8, 16, 32)


@dataclass
class Options:
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


def shares(options: Options) -> Iterator[Figure]:
    """decoding beside the read bandwidth"""
    for size in ("700M", "3B"):
        decoder = _ours(SIZES[size], options)
        case, limit = _beside_limit(f"decode {size} {ENCODING}", decoder, options)
        yield _share(f"{size} {ENCODING}, share of read bandwidth", decoder, case, limit)


def head(options: Options) -> Iterator[Figure]:
    """2B4T with Gaussian head rows: the screened head against the fp16 one"""
    config = SIZES["2B4T"]
    weights = replace_head(random_weights(config, ENCODING), gaussian(config))
    decoders = {kind: _Decoder(Model(weights, options.threads, kind), options.tokens)
                for kind in ("fp16", "screened")}  # fmt: skip
    cases = {kind: _case(f"decode 2B4T {kind} head", each, options)
             for kind, each in decoders.items()}  # fmt: skip
    probes = {kind: _probes(kind, each, options) for kind, each in decoders.items()}
    turns = [case for kind, each in cases.items() for case in (each, *probes[kind])]
    options.measure(turns)
    ratio = speedup(cases["fp16"].values, cases["screened"].values).median
    screened = decoders["screened"]
    allowed = decoders["fp16"].nbytes / screened.nbytes
    session = screened.session
    yield Figure(
        "head", "2B4T, screened over fp16 head", 1.35, ratio, "x",
        f"bytes allow {allowed:.2f}x; {session.rescored / session.screened:.0f} of "
        f"{config.vocabulary} rows a token rescored",
    )  # fmt: skip
    for kind, each in decoders.items():
        limit = bandwidth(probes[kind])
        yield _share(f"2B4T {kind} head, share of read bandwidth", each, cases[kind], limit, "head")
    _release(turns)


def peers(options: Options) -> Iterator[Figure]:
    """decoding beside llama.cpp's TQ1_0 and TQ2_0, each with its fastest head and threads"""
    for size in ("700M", "2B4T", "3B"):
        best = {each: _fastest(SIZES[size], each, options) for each in LLAMA_LINEAR}
        ours = _ours(SIZES[size], options, "auto")
        case = _settled(_case(f"tg {size} ternops {ENCODING}", ours, options))
        with ExitStack() as stack:
            theirs, scales = {}, {}
            for linear, (kind, threads) in best.items():
                decoder, scales[linear] = _llama(SIZES[size], linear, kind, threads, stack)
                theirs[linear] = _settled(
                    Case(f"tg {size} llama.cpp {linear}, {kind} head, {threads} thread(s)",
                         partial(decoder.generate, options.tokens), options.tokens,
                         {"ternops_version": options.version})
                )  # fmt: skip
            options.measure([case, *theirs.values()])
            _release([case, *theirs.values()])
        rates = {linear: scales[linear] / each.median for linear, each in theirs.items()}
        fastest = max(rates, key=lambda linear: rates[linear])
        ratio = speedup(theirs[fastest].values, case.values).median / scales[fastest]
        words = ", ".join(
            f"{linear} {rate:.1f} ({' head, '.join(map(str, best[linear]))} thread(s))"
            for linear, rate in rates.items()
        )
        scaled = f" (times {scales[fastest]:.3f} for its layout)" * (scales[fastest] > 1)
        yield Figure(
            "peers", f"tg {options.tokens} {size}, over llama.cpp {fastest.upper()}", 2.5, ratio,
            "x", f"{1 / case.median:.1f} tokens/s ({ours.model.head.kind} head); {words}{scaled}",
        )  # fmt: skip


def prefill(options: Options) -> Iterator[Figure]:
    """a prompt of 512 tokens beside llama.cpp"""
    config = SIZES["2B4T"]
    has_tiles = targets.TIER.name == "amx"
    asked = {"tq2_0": 13.0 if has_tiles else 3.4} | ({"q4_0": 6.0} if has_tiles else {})
    ours = _ours(config, options)
    tokens = np.random.default_rng(0).integers(0, config.vocabulary, _PROMPT).tolist()

    def read() -> None:
        ours.session.position = 0
        ours.session.read(tokens, wanted=1)

    case = _settled(Case(f"pp {_PROMPT} 2B4T ternops {ENCODING}", read, _PROMPT))
    with ExitStack() as stack:
        theirs = {}
        for linear in asked:
            decoder, _ = _llama(config, linear, "f16", options.threads, stack)
            name = f"pp {_PROMPT} 2B4T llama.cpp {linear}"
            theirs[linear] = _settled(
                Case(name, partial(decoder.prompt, _PROMPT), _PROMPT,
                     {"ternops_version": options.version})
            )  # fmt: skip
        options.measure([case, *theirs.values()], max(3, options.rounds // 3))
        _release([case, *theirs.values()])
    for linear, each in theirs.items():
        yield Figure(
            "prefill", f"pp {_PROMPT} 2B4T, over llama.cpp {linear.upper()}", asked[linear],
            speedup(each.values, case.values).median, "x",
            f"{1 / case.median:.1f} and {1 / each.median:.1f} tokens/s",
        )  # fmt: skip


def batch(options: Options) -> Iterator[Figure]:
    """700M, several sequences together"""
    model = Model(random_weights(SIZES["700M"], ENCODING), options.threads)
    cases = {}
    for size in _BATCHES:
        together = _Together(model, size, options.tokens)
        name = f"decode 700M {ENCODING}, batch {size}"
        cases[size] = Case(name, together, size * options.tokens, before=together.admit)
    options.measure(list(cases.values()))
    for size, case in cases.items():
        if size > 1:
            ratio = speedup(cases[1].values, case.values).median
            yield Figure(
                "batch", f"700M {ENCODING}, batch {size} over batch 1",
                4.0 if size == 8 else 1.0, ratio, "x", f"{1 / case.median:.1f} tokens/s",
            )  # fmt: skip
    _release(list(cases.values()))


def lookup(options: Options) -> Iterator[Figure]:
    """the tiny checkpoint behind text like code, with drafts from the prompt"""
    cases = {draft: _Drafted(draft, options) for draft in (0, 4, 8)}
    options.measure([each.case for each in cases.values()])
    plain = cases.pop(0)
    for draft, each in cases.items():
        same = each.output == plain.output
        ratio = speedup(plain.case.values, each.case.values).median
        yield Figure(
            "lookup", f"tiny, drafts of up to {draft} tokens over none",
            1.3 if draft == 4 else 1.0, ratio if same else 0.0, "x",
            f"{1 / plain.case.median:.0f} and {1 / each.case.median:.0f} tokens/s; "
            f"{'identical output' if same else 'OUTPUT DIFFERS'}",
        )  # fmt: skip
    _release([each.case for each in (plain, *cases.values())])


class _Drafted:
    """Generates behind `lookup_text`, which has been read before."""

    def __init__(self, draft: int, options: Options) -> None:
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


def start(options: Options) -> Iterator[Figure]:
    """a new process, a packed file of 2B4T's size, and its first token"""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        layout, _ = random_gguf.for_llama_cpp(SIZES["2B4T"], "tq2_0", "f16")
        source = stack.enter_context(random_gguf.random_gguf(folder, layout, "tq2_0", "f16"))
        packed = folder / "packed.safetensors"
        begin = time.perf_counter()
        convert(source, packed, ENCODING)
        conversion = time.perf_counter() - begin
        first, read = [], []
        for _ in range(4):  # of which the first warms the disk's cache and the kernels'
            first.append(_first_token(packed, options.threads))
            read.append(_read_once(packed))
        yield Figure(
            "start", "2B4T packed, process to first token, beyond reading the file", 3.0,
            min(a - b for a, b in zip(first[1:], read[1:], strict=True)), " s",
            f"{packed.stat().st_size / 1e9:.2f} GB; first token after {min(first[1:]):.2f} s, "
            f"reading {min(read[1:]):.2f} s; written by quantize in {conversion:.0f} s",
        )  # fmt: skip


def _first_token(path: Path, threads: int) -> float:
    """Seconds from starting Python to a model's first token."""
    code = (
        "import sys; from ternops.decoder import Model; "
        f"model = Model.from_pretrained(sys.argv[1], threads={threads}); "
        "next(model.generate([1]))"
    )
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    return time.perf_counter() - begin


def _read_once(path: Path) -> float:
    """Seconds to read a file from beginning to end."""
    begin = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(1 << 22))
        while file.readinto(buffer):
            pass
    return time.perf_counter() - begin


class _Decoder:
    """Decodes `tokens` tokens from an empty context, greedily, as llama-bench's "tg" does."""

    def __init__(self, model: Model, tokens: int) -> None:
        self.model, self.tokens = model, tokens
        self.session = Session(model)

    def __call__(self) -> None:
        self.session.position = 0
        for token in range(self.tokens):
            int(np.argmax(self.session.step(token, wanted=1)))

    @property
    def nbytes(self) -> int:
        """Bytes of a token: linear layers, head, and the mean of keys and values read."""
        row = self.model.weights.head.bits[0].nbytes
        rescored = self.session.rescored * row // max(1, self.session.screened)
        cache = cache_bytes(self.model.config, self.model.cache, 1) * (self.tokens + 1) // 2
        return self.model.bytes_per_token + rescored + cache


def _ours(config: Config, options: Options, head: str = "fp16") -> _Decoder:
    return _Decoder(Model(random_weights(config, ENCODING), options.threads, head), options.tokens)


def _case(name: str, decoder: _Decoder, options: Options) -> Case:
    metadata = {"ternops_threads": options.threads, "ternops_tier": targets.TIER.name}
    return Case(name, decoder, decoder.tokens, metadata)


def _probes(what: str, decoder: _Decoder, options: Options) -> list[Case]:
    decoder()  # so that it is known how many rows are rescored
    return probe_cases(what, Reader(min(_MOST_PROBED, decoder.nbytes)), options.threads)


def _beside_limit(name: str, decoder: _Decoder, options: Options) -> tuple[Case, float]:
    case, probes = _case(name, decoder, options), _probes(name, decoder, options)
    options.measure([case, *probes])
    limit = bandwidth(probes)
    _release([case, *probes])
    return case, limit


def _share(
    what: str, decoder: _Decoder, case: Case, limit: float, section: str = "share"
) -> Figure:
    case.metadata |= {"ternops_bytes_per_token": decoder.nbytes, "ternops_read_bandwidth": limit}
    speed = decoder.nbytes / case.median
    remark = (
        f"{1 / case.median:.1f} tokens/s x {decoder.nbytes / 1e6:.1f} MB = {speed / 1e9:.1f} of "
        f"{limit / 1e9:.1f} GB/s"
    )
    return Figure(section, what, 0.9, speed / limit, "%", remark)


def gaussian(config: Config) -> HalfMatrix:
    """A head of independent Gaussian weights: `random_weights` repeats its rows."""
    random = np.random.default_rng(0)
    bits = aligned_empty((config.vocabulary, config.hidden), np.uint16)
    for start in range(0, config.vocabulary, 4096):
        rows = bits[start : start + 4096]
        values = random.standard_normal(rows.shape, np.float32) / np.float32(config.hidden**0.5)
        rows[...] = values.astype(np.float16).view(np.uint16)
    return HalfMatrix(bits, config.hidden, is_bf16=False)


def replace_head(weights: Weights, head: HalfMatrix) -> Weights:
    """The same weights with another embedding, which is the head as well."""
    return replace(weights, embedding=head, head=head)


class _Together:
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


def _fastest(config: Config, linear: str, options: Options) -> tuple[str, int]:
    """The type of embedding and head, and the threads, with which llama.cpp generates fastest."""
    seconds = {kind: _seconds(config, linear, kind, options.threads) for kind in LLAMA_HEADS}
    kind = min(seconds, key=lambda each: seconds[each])
    # A second thread does not always pay.
    alone = _seconds(config, linear, kind, 1)
    return kind, 1 if alone < seconds[kind] else options.threads


def _seconds(config: Config, linear: str, head: str, threads: int) -> float:
    """Of a short generation by llama.cpp, the better of two."""
    with ExitStack() as stack:
        decoder, _ = _llama(config, linear, head, threads, stack)
        settle(partial(decoder.generate, 1))
        return min(decoder.generate(_SCOUTED) for _ in range(2))


def _llama(
    config: Config, linear: str, head: str, threads: int, stack: ExitStack
) -> tuple[LlamaDecoder, float]:
    """llama.cpp with a random model, and what its rates are to be multiplied with."""
    layout, scale = random_gguf.for_llama_cpp(config, linear, head)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    path = stack.enter_context(random_gguf.random_gguf(folder, layout, linear, head))
    decoder = LlamaDecoder(path, threads, _PROMPT)
    stack.callback(decoder.close)
    return decoder, scale


def _settled(case: Case) -> Case:
    """The same, timed when the threads of other engines have gone to sleep."""
    run = case.run
    case.before = lambda: settle(run)
    return case


def _release(cases: list[Case]) -> None:
    for case in cases:
        case.release()


#: Each section by its name; what compares with llama.cpp is in PEERS as well.
SECTIONS = {
    "share": shares, "head": head, "peers": peers, "prefill": prefill, "batch": batch,
    "lookup": lookup, "start": start,
}  # fmt: skip
PEERS = ("peers", "prefill")
