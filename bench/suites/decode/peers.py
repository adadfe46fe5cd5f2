"""Decoding beside llama.cpp, which gets the head and the threads that it is fastest with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from math import nan

from bench.core.goals import Goal
from bench.core.measure import speedup
from bench.core.process import WorkerError
from bench.suites.decode import cases as make
from bench.suites.decode.cases import ENCODING, DecodeOptions, OurDecoder
from bench.suites.decoders import llama, llama_case, settled
from ternops.cost.layouts import SIZES
from ternops.decoder import Config, Model

#: What holds Q4_0: as many bits, and a scale for as many inputs.
_LEVELS, _GROUP, _SIZE = "nibble", 32, "700M"


def peers(options: DecodeOptions) -> Iterator[Goal]:
    """decoding beside llama.cpp's TQ1_0 and TQ2_0, each with its fastest head and threads"""
    for size in ("700M", "2B4T", "3B"):

        def ours(config: Config) -> OurDecoder:
            return make.our_decoder(config, options, "auto")

        yield _beside("peers", size, ENCODING, ours, make.LLAMA_LINEAR, 2.5, options)


def levels(options: DecodeOptions) -> Iterator[Goal]:
    """16 levels and a scale for 32 inputs, beside llama.cpp's Q4_0 with its fastest head"""

    def ours(config: Config) -> OurDecoder:
        weights = make.gaussian(config, _LEVELS, _GROUP)
        return OurDecoder(Model(weights, options.threads, "auto"), options.tokens)

    name = f"{_LEVELS}, group {_GROUP}"
    yield _beside("levels", _SIZE, name, ours, ("q4_0",), 1.3, options)


def _beside(
    section: str, size: str, name: str, make_ours: Callable[[Config], OurDecoder],
    types: tuple[str, ...], asked: float, options: DecodeOptions,
) -> Goal:  # fmt: skip
    """A layout's decoder over the fastest of llama.cpp's types."""
    config = SIZES[size]
    best = {}
    for linear in types:
        try:
            best[linear] = make.fastest_settings(config, linear, options)
        except WorkerError as error:
            options.notes.append(f"tg {size} {linear}: {error}")
    ours = make_ours(config)
    case = settled(ours.case(f"tg {size} ternops {name}"))
    with ExitStack() as stack:
        theirs, decoders, scales = {}, {}, {}
        for linear, (kind, threads) in best.items():
            decoders[linear], scales[linear] = llama(config, linear, kind, threads, stack)
            theirs[linear] = llama_case(
                f"tg {size} llama.cpp {linear}, {kind} head, {threads} thread(s)",
                decoders[linear], False, options.tokens, ternops_version=options.version,
            )  # fmt: skip
        options.measure([case, *theirs.values()])
    for linear in [each for each in theirs if theirs[each].failure]:
        options.notes.append(f"tg {size} {linear}: {theirs.pop(linear).failure}")
    what = f"tg {options.tokens} {size}, over llama.cpp"
    if not theirs:
        return Goal(section, what, asked, nan, "x", options.notes[-1])
    rates = {linear: scales[linear] / each.median for linear, each in theirs.items()}
    fastest = max(rates, key=rates.__getitem__)
    ratio = speedup(theirs[fastest].values, case.values).median / scales[fastest]
    words = ", ".join(
        f"{linear} {rate:.1f} ({' head, '.join(map(str, best[linear]))} thread(s))"
        for linear, rate in rates.items()
    )
    words += f" (times {scales[fastest]:.3f} for its layout)" * (scales[fastest] > 1)
    words += f"; {decoders[fastest].remark}" * bool(decoders[fastest].remark)
    return Goal(
        section, f"{what} {fastest.upper()}", asked, ratio, "x",
        f"{1 / case.median:.1f} tokens/s ({ours.model.head.kind} head); {words}",
    )  # fmt: skip
