"""What bench.decode measures, section by section, and the figures from it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from math import nan
from pathlib import Path

import numpy as np

from bench.core.goals import Goal
from bench.core.measure import Case, speedup
from bench.models import random_gguf
from bench.suites.decode import cases as make
from bench.suites.decode.busy import busy
from bench.suites.decode.cases import ENCODING, DecodeOptions
from bench.suites.decode.deltas import deltas
from bench.suites.decode.embedding import embed
from bench.suites.decode.peers import levels, peers
from bench.suites.decoders import PROMPT, llama, llama_case, settled
from ternops.cost.layouts import GROUP, GROUPED, HYBRID, SIZES
from ternops.decoder import Config, Model
from ternops.decoder.cache import kv_cache_bytes
from ternops.decoder.formats.convert import convert
from ternops.decoder.records import PRODUCTS
from ternops.decoder.weights import random_weights
from ternops.isa import HAS_TILES

#: Of the layouts with a scale a group of inputs: ours, and llama.cpp's types with what was asked.
GROUPED_ENCODING = "two_bit"
_GROUPED_PEERS, _FEW_TOKENS = {"q2_0": 10.0, "q4_0": 1.8}, 3
_BATCHES = (1, 2, 4, 8, 16, 32)


def shares(options: DecodeOptions) -> Iterator[Goal]:
    """decoding beside the read bandwidth"""
    for size in ("700M", "3B"):
        decoder = make.our_decoder(SIZES[size], options)
        name = f"decode {size} {ENCODING}"
        case, limit = make.beside_limit({name: decoder}, options)[name]
        what = f"{size} {ENCODING}, share of read bandwidth"
        yield _share("share", what, decoder, case, limit, f"; {decoder.breakdown()}")


def head(options: DecodeOptions) -> Iterator[Goal]:
    """2B4T with Gaussian head rows: the screened head against the fp16 one"""
    config = SIZES["2B4T"]
    weights = make.gaussian(config)
    decoders = {
        kind: make.OurDecoder(Model(weights, options.threads, kind, sparse="never"), options.tokens)
        for kind in ("fp16", "screened")
    }
    names = {f"decode 2B4T {kind} head": each for kind, each in decoders.items()}
    (fp16, _), (screened, _) = (found := make.beside_limit(names, options)).values()
    session = decoders["screened"].session
    yield Goal(
        "head", "2B4T, screened over fp16 head", 1.35,
        speedup(fp16.values, screened.values).median, "x",
        f"bytes allow {decoders['fp16'].nbytes / decoders['screened'].nbytes:.2f}x; "
        f"{session.rescored / session.screened:.0f} of {config.vocabulary} rows a token rescored",
    )  # fmt: skip
    for (kind, each), (case, limit) in zip(decoders.items(), found.values(), strict=True):
        yield _share("head", f"2B4T {kind} head, share of read bandwidth", each, case, limit)


def sparse(options: DecodeOptions) -> Iterator[Goal]:
    """2B4T with as many zeros behind its gates as a trained model has, and without any more"""
    plain = make.gaussian(SIZES["2B4T"])
    for what, weights, asked in (
        ("gates like trained ones", make.trained_like(plain), (1.2, 1.1)),
        ("random gates", plain, (1.0, 1.0)),
    ):
        whole, left = (
            make.OurDecoder(
                Model(weights, options.threads, "screened", sparse=kind), options.tokens
            )
            for kind in ("never", "auto")
        )
        cases = [whole.case(f"2B4T, {what}"), left.case(f"2B4T, {what}, sparse")]
        options.measure(cases)
        pairs = [(whole.parts()[PRODUCTS], left.parts()[PRODUCTS]) for _ in range(options.rounds)]
        rows, columns = left.session.shares_read
        read = weights.linear_bytes
        rest = read - left.session.bytes_saved
        yield Goal(
            "sparse", f"2B4T, {what}, linear layers, sparse over all", asked[0],
            float(np.median([before / after for before, after in pairs])), "x",
            f"{rows:.0%} of up's rows and {columns:.0%} of down's columns read: {rest / 1e6:.0f} "
            f"of {read / 1e6:.0f} MB, which allow {read / rest:.2f}x; "
            f"{left.model.sparsity.nbytes / 1e6:.0f} MB more are kept",
        )  # fmt: skip
        yield Goal(
            "sparse", f"2B4T, {what}, tokens, sparse over all", asked[1],
            speedup(cases[0].values, cases[1].values).median, "x",
            f"{1 / cases[1].median:.1f} and {1 / cases[0].median:.1f} tokens/s; bytes allow "
            f"{whole.nbytes / left.nbytes:.2f}x",
        )  # fmt: skip


def _with_groups(
    size: str, config: Config, options: DecodeOptions
) -> tuple[str, make.OurDecoder, Case, float]:
    """A layout with a scale for GROUP inputs: name, decoder, and these beside the bandwidth."""
    model = Model(random_weights(config, GROUPED_ENCODING, group=GROUP), options.threads)
    decoder = make.OurDecoder(model, options.tokens)
    name = f"tg {size} ternops {GROUPED_ENCODING}, group {GROUP}"
    return name, decoder, *make.beside_limit({name: decoder}, options)[name]


def grouped(options: DecodeOptions) -> Iterator[Goal]:
    """a scale for 128 inputs, ternary embedding and head, beside llama.cpp's Q2_0 and Q4_0"""
    for size, config in GROUPED.items():
        name, decoder, case, limit = _with_groups(size, config, options)
        yield _share("grouped", f"{size}, share of read bandwidth", decoder, case, limit)
        for linear, asked in _GROUPED_PEERS.items():
            with ExitStack() as stack:
                ours = settled(decoder.case(f"{name}, beside {linear}"))
                theirs, _ = llama(config, linear, linear, options.threads, stack)
                # Scalar code takes seconds a token, and has as little scatter.
                other = llama_case(
                    f"tg {size} llama.cpp {linear}", theirs, False, _FEW_TOKENS,
                    ternops_version=options.version,
                )  # fmt: skip
                options.measure([ours, other], 3)
            ratio, words = nan, other.failure
            if not other.failure:
                ratio = speedup(other.values, ours.values).median
                words = f"{1 / ours.median:.1f} and {1 / other.median:.2f} tokens/s"
                words += f"; {theirs.remark}" * bool(theirs.remark)
            what = f"tg {options.tokens} {size}, over llama.cpp {linear.upper()}"
            yield Goal("grouped", what, asked, ratio, "x", words)


def hybrid(options: DecodeOptions) -> Iterator[Goal]:
    """a gated delta net in three layers of four, a scale for 128 inputs, beside the bandwidth"""
    for size, config in HYBRID.items():
        _, decoder, case, limit = _with_groups(size, config, options)
        states = kv_cache_bytes(config, decoder.model.cache, 0) / 1e6
        more = f"; {states:.1f} MB of them states, also written; {decoder.breakdown()}"
        yield _share("hybrid", f"{size}, share of read bandwidth", decoder, case, limit, more)


def prefill(options: DecodeOptions) -> Iterator[Goal]:
    """a prompt of 512 tokens beside llama.cpp"""
    config = SIZES["2B4T"]
    asked = {"tq2_0": 13.0 if HAS_TILES else 3.4} | ({"q4_0": 6.0} if HAS_TILES else {})
    session = make.our_decoder(config, options).session
    tokens = np.random.default_rng(0).integers(0, config.vocabulary, PROMPT).tolist()

    def read() -> None:
        session.position = 0
        session.read(tokens, exact_top=1)

    case = settled(Case(f"pp {PROMPT} 2B4T ternops {ENCODING}", read, PROMPT))
    with ExitStack() as stack:
        theirs, decoders = {}, {}
        for linear in asked:
            decoders[linear], _ = llama(config, linear, "f16", options.threads, stack)
            theirs[linear] = llama_case(
                f"pp {PROMPT} 2B4T llama.cpp {linear}", decoders[linear], True, PROMPT,
                ternops_version=options.version,
            )  # fmt: skip
        options.measure([case, *theirs.values()], max(3, options.rounds // 3))
    for linear, each in theirs.items():
        ratio, words = nan, each.failure
        if not each.failure:
            ratio = speedup(each.values, case.values).median
            words = f"{1 / case.median:.1f} and {1 / each.median:.1f} tokens/s"
            words += f"; {decoders[linear].remark}" * bool(decoders[linear].remark)
        yield Goal(
            "prefill", f"pp {PROMPT} 2B4T, over llama.cpp {linear.upper()}", asked[linear], ratio,
            "x", words,
        )  # fmt: skip


def batch(options: DecodeOptions) -> Iterator[Goal]:
    """700M, several sequences together"""
    model = Model(make.gaussian(SIZES["700M"]), options.threads)
    cases = {size: make.together(model, size, options.tokens) for size in _BATCHES}
    options.measure([*cases.values()])
    one = cases.pop(1)
    for size, case in cases.items():
        yield Goal(
            "batch", f"700M {ENCODING}, batch {size} over batch 1", 4.0 if size == 8 else 1.0,
            speedup(one.values, case.values).median, "x", f"{1 / case.median:.1f} tokens/s",
        )  # fmt: skip


def lookup(options: DecodeOptions) -> Iterator[Goal]:
    """the tiny checkpoint behind text like code, with drafts from the prompt"""
    cases = {draft: make.Drafted(draft, options) for draft in (0, 4, 8)}
    options.measure([each.case for each in cases.values()])
    plain = cases.pop(0)
    for draft, each in cases.items():
        same = each.output == plain.output
        ratio = speedup(plain.case.values, each.case.values).median
        yield Goal(
            "lookup", f"tiny, drafts of up to {draft} tokens over none",
            1.3 if draft == 4 else 1.0, ratio if same else 0.0, "x",
            f"{1 / plain.case.median:.0f} and {1 / each.case.median:.0f} tokens/s; "
            f"{'identical output' if same else 'OUTPUT DIFFERS'}",
        )  # fmt: skip


def start(options: DecodeOptions) -> Iterator[Goal]:
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
            first.append(make.first_token(packed, options.threads))
            read.append(make.read_once(packed))
        yield Goal(
            "start", "2B4T packed, process to first token, beyond reading the file", 3.0,
            float(np.median(np.subtract(first, read)[1:])), " s",
            f"{packed.stat().st_size / 1e9:.2f} GB; first token after "
            f"{np.median(first[1:]):.2f} s, reading {np.median(read[1:]):.2f} s; written by "
            f"quantize in {conversion:.0f} s",
        )  # fmt: skip


def _share(
    section: str, what: str, decoder: make.OurDecoder, case: Case, limit: float, more: str = ""
) -> Goal:
    """The bytes that a decoder reads a second, beside the bandwidth `limit`."""
    case.metadata |= {"ternops_bytes_per_token": decoder.nbytes, "ternops_read_bandwidth": limit}
    speed = decoder.nbytes / case.median
    remark = (
        f"{1 / case.median:.1f} tokens/s x {decoder.nbytes / 1e6:.1f} MB = {speed / 1e9:.1f} of "
        f"{limit / 1e9:.1f} GB/s"
    )
    return Goal(section, what, 0.9, speed / limit, "%", remark + more)


#: Each section by its name; what compares with llama.cpp is in PEERS as well.
SECTIONS = {
    "share": shares, "head": head, "sparse": sparse, "peers": peers, "levels": levels,
    "prefill": prefill, "grouped": grouped, "hybrid": hybrid, "embed": embed, "batch": batch,
    "deltas": deltas, "lookup": lookup, "start": start, "busy": busy,
}  # fmt: skip
PEERS = ("peers", "levels", "prefill", "grouped")
