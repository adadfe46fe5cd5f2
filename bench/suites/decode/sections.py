"""What bench.decode measures, section by section, and the figures from it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from bench.core.goals import Goal
from bench.core.measure import Case, speedup
from bench.limits.probes import bandwidth
from bench.models import random_gguf
from bench.suites.decode.busy import busy
from bench.suites.decode.cases import (
    ENCODING,
    LLAMA_LINEAR,
    PROMPT,
    DecodeOptions,
    Drafted,
    OurDecoder,
    Together,
    beside_limit,
    breakdown,
    case_of,
    fastest_settings,
    first_token,
    gaussian,
    llama,
    our_decoder,
    probes_of,
    read_once,
    release,
    settled,
)
from ternops.cost.layouts import SIZES
from ternops.decoder import Model
from ternops.decoder.formats.convert import convert
from ternops.isa import HAS_TILES

_BATCHES = (1, 2, 4, 8, 16, 32)


def shares(options: DecodeOptions) -> Iterator[Goal]:
    """decoding beside the read bandwidth"""
    for size in ("700M", "3B"):
        decoder = our_decoder(SIZES[size], options)
        case, limit = beside_limit(f"decode {size} {ENCODING}", decoder, options)
        figure = share_of(f"{size} {ENCODING}, share of read bandwidth", decoder, case, limit)
        yield replace(figure, remark=f"{figure.remark}; {breakdown(decoder)}")


def head(options: DecodeOptions) -> Iterator[Goal]:
    """2B4T with Gaussian head rows: the screened head against the fp16 one"""
    config = SIZES["2B4T"]
    weights = gaussian(config)
    decoders = {kind: OurDecoder(Model(weights, options.threads, kind), options.tokens)
                for kind in ("fp16", "screened")}  # fmt: skip
    cases = {kind: case_of(f"decode 2B4T {kind} head", each, options)
             for kind, each in decoders.items()}  # fmt: skip
    probes = {kind: probes_of(kind, each, options) for kind, each in decoders.items()}
    turns = [case for kind, each in cases.items() for case in (each, *probes[kind])]
    options.measure(turns)
    ratio = speedup(cases["fp16"].values, cases["screened"].values).median
    screened = decoders["screened"]
    allowed = decoders["fp16"].nbytes / screened.nbytes
    session = screened.session
    yield Goal(
        "head", "2B4T, screened over fp16 head", 1.35, ratio, "x",
        f"bytes allow {allowed:.2f}x; {session.rescored / session.screened:.0f} of "
        f"{config.vocabulary} rows a token rescored",
    )  # fmt: skip
    for kind, each in decoders.items():
        limit = bandwidth(probes[kind], cases[kind].values)
        yield share_of(
            f"2B4T {kind} head, share of read bandwidth", each, cases[kind], limit, "head"
        )
    release(turns)


def peers(options: DecodeOptions) -> Iterator[Goal]:
    """decoding beside llama.cpp's TQ1_0 and TQ2_0, each with its fastest head and threads"""
    for size in ("700M", "2B4T", "3B"):
        best = {each: fastest_settings(SIZES[size], each, options) for each in LLAMA_LINEAR}
        ours = our_decoder(SIZES[size], options, "auto")
        case = settled(case_of(f"tg {size} ternops {ENCODING}", ours, options))
        with ExitStack() as stack:
            theirs, scales = {}, {}
            for linear, (kind, threads) in best.items():
                decoder, scales[linear] = llama(SIZES[size], linear, kind, threads, stack)
                theirs[linear] = settled(
                    Case(f"tg {size} llama.cpp {linear}, {kind} head, {threads} thread(s)",
                         partial(decoder.generate, options.tokens), options.tokens,
                         {"ternops_version": options.version})
                )  # fmt: skip
            options.measure([case, *theirs.values()])
            release([case, *theirs.values()])
        rates = {linear: scales[linear] / each.median for linear, each in theirs.items()}
        fastest = max(rates, key=lambda linear: rates[linear])
        ratio = speedup(theirs[fastest].values, case.values).median / scales[fastest]
        words = ", ".join(
            f"{linear} {rate:.1f} ({' head, '.join(map(str, best[linear]))} thread(s))"
            for linear, rate in rates.items()
        )
        scaled = f" (times {scales[fastest]:.3f} for its layout)" * (scales[fastest] > 1)
        yield Goal(
            "peers", f"tg {options.tokens} {size}, over llama.cpp {fastest.upper()}", 2.5, ratio,
            "x", f"{1 / case.median:.1f} tokens/s ({ours.model.head.kind} head); {words}{scaled}",
        )  # fmt: skip


def prefill(options: DecodeOptions) -> Iterator[Goal]:
    """a prompt of 512 tokens beside llama.cpp"""
    config = SIZES["2B4T"]
    asked = {"tq2_0": 13.0 if HAS_TILES else 3.4} | ({"q4_0": 6.0} if HAS_TILES else {})
    ours = our_decoder(config, options)
    tokens = np.random.default_rng(0).integers(0, config.vocabulary, PROMPT).tolist()

    def read() -> None:
        ours.session.position = 0
        ours.session.read(tokens, exact_top=1)

    case = settled(Case(f"pp {PROMPT} 2B4T ternops {ENCODING}", read, PROMPT))
    with ExitStack() as stack:
        theirs = {}
        for linear in asked:
            decoder, _ = llama(config, linear, "f16", options.threads, stack)
            name = f"pp {PROMPT} 2B4T llama.cpp {linear}"
            theirs[linear] = settled(
                Case(name, partial(decoder.prompt, PROMPT), PROMPT,
                     {"ternops_version": options.version})
            )  # fmt: skip
        options.measure([case, *theirs.values()], max(3, options.rounds // 3))
        release([case, *theirs.values()])
    for linear, each in theirs.items():
        yield Goal(
            "prefill", f"pp {PROMPT} 2B4T, over llama.cpp {linear.upper()}", asked[linear],
            speedup(each.values, case.values).median, "x",
            f"{1 / case.median:.1f} and {1 / each.median:.1f} tokens/s",
        )  # fmt: skip


def batch(options: DecodeOptions) -> Iterator[Goal]:
    """700M, several sequences together"""
    model = Model(gaussian(SIZES["700M"]), options.threads)
    cases = {}
    for size in _BATCHES:
        together = Together(model, size, options.tokens)
        name = f"decode 700M {ENCODING}, batch {size}"
        cases[size] = Case(name, together, size * options.tokens, before=together.admit)
    options.measure(list(cases.values()))
    for size, case in cases.items():
        if size > 1:
            ratio = speedup(cases[1].values, case.values).median
            yield Goal(
                "batch", f"700M {ENCODING}, batch {size} over batch 1",
                4.0 if size == 8 else 1.0, ratio, "x", f"{1 / case.median:.1f} tokens/s",
            )  # fmt: skip
    release(list(cases.values()))


def lookup(options: DecodeOptions) -> Iterator[Goal]:
    """the tiny checkpoint behind text like code, with drafts from the prompt"""
    cases = {draft: Drafted(draft, options) for draft in (0, 4, 8)}
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
    release([each.case for each in (plain, *cases.values())])


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
            first.append(first_token(packed, options.threads))
            read.append(read_once(packed))
        yield Goal(
            "start", "2B4T packed, process to first token, beyond reading the file", 3.0,
            float(np.median(np.subtract(first, read)[1:])), " s",
            f"{packed.stat().st_size / 1e9:.2f} GB; first token after "
            f"{np.median(first[1:]):.2f} s, reading {np.median(read[1:]):.2f} s; written by "
            f"quantize in {conversion:.0f} s",
        )  # fmt: skip


def share_of(
    what: str, decoder: OurDecoder, case: Case, limit: float, section: str = "share"
) -> Goal:
    """The bytes that a decoder reads a second, beside the bandwidth `limit`."""
    case.metadata |= {"ternops_bytes_per_token": decoder.nbytes, "ternops_read_bandwidth": limit}
    speed = decoder.nbytes / case.median
    remark = (
        f"{1 / case.median:.1f} tokens/s x {decoder.nbytes / 1e6:.1f} MB = {speed / 1e9:.1f} of "
        f"{limit / 1e9:.1f} GB/s"
    )
    return Goal(section, what, 0.9, speed / limit, "%", remark)


#: Each section by its name; what compares with llama.cpp is in PEERS as well.
SECTIONS = {
    "share": shares, "head": head, "peers": peers, "prefill": prefill, "batch": batch,
    "lookup": lookup, "start": start, "busy": busy,
}  # fmt: skip
PEERS = ("peers", "prefill")
