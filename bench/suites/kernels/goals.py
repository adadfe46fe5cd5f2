"""What was asked of the kernels, and what was seen of it in a run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np

from bench.core.goals import Goal
from bench.core.kernels import NO_PYTHON, OURS, Product, Timings
from bench.core.measure import MAX_SHARE
from bench.core.results import LOOK_UPS, plural
from ternops.isa.detect import FAMILY
from ternops.isa.tier import is_zen

#: Where a look-up of a byte takes several operations, as on Intel, base3 computes longer.
_OF_READING = {"two_bit": 0.97, "base3": 0.95 if is_zen(FAMILY) else 0.88}
_VNNI_TIERS = ("avx512vbmi", "avx512vnni", "avxvnni")


def goals(results: Timings, tier: str) -> list[Goal]:
    """All that was asked of a machine whose own tier is `tier`, as far as it was measured."""
    return [goal for each in _GOALS for goal in each(results, tier)]


def beyond(results: Timings) -> list[str]:
    """A sentence for each product that was faster than its limit, which no probe has found then."""
    sentences = []
    for product in results.products:
        share = results.share(product)
        if share is not None and share > MAX_SHARE:
            sentences.append(f"{product.name}: {share:.1%} of the limit; the probe missed it")
    return sentences


def of_ungrouped(family: str) -> dict[str, float]:
    """What is asked of one token with a scale a group: as `_OF_READING`, nothing of base3 where its
    look-up leaves the sums of groups no time."""
    return {"two_bit": 0.90, "base3": 0.85} if is_zen(family) else {"two_bit": 0.80}


def _gemv_dram(results: Timings, tier: str) -> Iterator[Goal]:
    for product in results.find(section="gemv-dram", tier=tier):
        asked = 0.60 if product.encoding in LOOK_UPS else _OF_READING.get(product.encoding, 0.95)
        yield from _share_of_reading(results, product, "gemv-dram", asked)


def _avx2(results: Timings, tier: str) -> Iterator[Goal]:
    for product in results.find(section="gemv-dram", tier="avx2") if tier != "avx2" else []:
        if product.encoding != "base3":
            asked = 0.60 if product.encoding in LOOK_UPS else 0.90
            yield from _share_of_reading(results, product, "avx2", asked)


def _share_of_reading(
    results: Timings, product: Product, section: str, asked: float
) -> Iterator[Goal]:
    share = results.shares(product).get(product.level)
    if share is not None:
        yield Goal(section, f"{_name(product)}: of the read bandwidth", asked, share, "%")


def _gemv_cache(results: Timings, tier: str) -> Iterator[Goal]:
    found = {each.encoding: each for each in results.find(section="gemv-cache", tier=tier)}
    two_bit, base3 = found.get("two_bit"), found.get("base3")
    if two_bit and (share := results.shares(two_bit).get("dot")):
        yield Goal("gemv-cache", "two_bit: of the dot rate", 0.50, share, "%")
    if two_bit and base3:
        ratio = results.ratio(base3, two_bit)
        yield Goal("gemv-cache", "base3: weights a second, of two_bit's", 0.60, ratio, "%")


def _batch(results: Timings, tier: str) -> Iterator[Goal]:
    for eight in results.find(section="batch", tier=tier, tokens=8):
        same = {"encoding": eight.encoding, "threads": eight.threads, "tokens": 1}
        for one in results.find(section="batch", tier=tier, **same):
            what = f"{_name(eight)}: 8 tokens over 1"
            roofs = [min(results.roofs(each).values(), default=0) for each in (eight, one)]
            remark = ""
            if all(roofs):
                allowed, share = roofs[0] / roofs[1], results.rate(eight) / roofs[0]
                remark = f"the limits allow {allowed:.1f}x; {share:.0%} of that of 8"
            yield Goal("batch", what, 4, results.ratio(eight, one), "x", remark)


def _gemm(results: Timings, tier: str) -> Iterator[Goal]:
    """The worse of the two dtypes counts."""
    asked = {"amx": 0.47, **dict.fromkeys(_VNNI_TIERS, 0.75)}.get(tier)
    found = results.find(section="gemm", tier=tier, how="")
    for name in dict.fromkeys(map(_name, found)) if asked else ():
        products = [each for each in found if _name(each) == name]
        shares = [share for each in products if (share := results.share(each))]
        if asked and shares:
            yield Goal("gemm", f"{name}: of the {products[0].peak} rate", asked, min(shares), "%")
        if tier == "amx" and (ratios := [*_over_vnni(results, products)]):
            yield Goal("gemm", f"{name}: AMX over VNNI", 4, min(ratios), "x")


def _grouped(results: Timings, tier: str) -> Iterator[Goal]:
    """Against the same product without scales a group: of its bandwidth, and of its rate."""
    for each in results.find(section="grouped", tier=tier):
        name, _, group = each.encoding.partition("/")
        same = {"tokens": each.tokens, "threads": each.threads, "tier": tier, "encoding": name}
        for plain in results.find(section="grouped", **same) if group else []:
            ratio = results.ratio(each, plain)
            if each.tokens == 1:
                asked = of_ungrouped(FAMILY).get(name)
                ratio *= (each.bytes / each.macs) / (plain.bytes / plain.macs)
                what = f"{_name(each)}: of {name}'s bandwidth"
            else:
                # Of smaller groups nothing: twice as many sums become floats.
                most = {"amx": 0.45, **dict.fromkeys(_VNNI_TIERS, 0.70)}
                asked = most.get(tier) if group == "128" else None
                what = f"{_name(each)}, {each.tokens} tokens: of {name}'s rate"
            if asked:
                yield Goal("grouped", what, asked, ratio, "%")


#: What others are compared with; and what is asked of them with many tokens.
_TERNARY = "two_bit/128"
_OF_TWO_BIT = {"nibble": 0.85, "two_bit": 0.85, "three_bit": 0.70, "one_bit": 0.80}


def _low_bit(results: Timings, tier: str) -> Iterator[Goal]:
    """One token of the bandwidth with all threads, many of two_bit's rate with three levels."""
    found = [*results.find(section="low-bit", tier=tier)]
    threads = max((each.threads for each in found), default=0)
    for each in found:
        asked = _OF_TWO_BIT.get(re.split("[/ ]", each.encoding)[0])
        if not asked or each.encoding == _TERNARY:
            continue
        if each.tokens == 1:
            if each.threads == threads:
                yield from _share_of_reading(results, each, "low-bit", 0.85)
            continue
        same = {"tokens": each.tokens, "threads": each.threads, "tier": tier}
        for plain in results.find(section="low-bit", encoding=_TERNARY, **same):
            what = f"{_name(each)}, {each.tokens} tokens: of two_bit's rate"
            yield Goal("low-bit", what, asked, results.ratio(each, plain), "%")


def _over_vnni(results: Timings, products: list[Product]) -> Iterator[float]:
    """How many times as fast as the same without AMX."""
    for each in products:
        same = {"encoding": each.encoding, "input": each.input, "threads": each.threads, "how": ""}
        for other in results.find(section="gemm", tier="avx512vbmi", **same):
            yield results.rate(each) / results.rate(other)


def _published(results: Timings, tier: str) -> Iterator[Goal]:
    many = {"amx": 6, **dict.fromkeys(_VNNI_TIERS, 1.3)}.get(tier)
    ratios: dict[tuple[str, str, float], list[float]] = {}
    for ours in results.find(section="published", tier=tier, engine=OURS):
        for peer in results.find(section="published", group=ours.group, encoding=""):
            if ours.tokens == 1:
                words, asked = "1 token", 5.0
            elif ours.tokens >= 128 and many:
                words, asked = "128 tokens and more, at worst", many
            else:
                continue
            ratios.setdefault((peer.engine, words, asked), []).append(results.ratio(ours, peer))
    for (engine, words, asked), seen in sorted(ratios.items()):
        yield Goal("published", f"{words}: over {engine}", asked, min(seen), "x")


def _overhead(results: Timings, tier: str) -> Iterator[Goal]:
    for whole in results.find(section="overhead", tier=tier, how=""):
        for alone in results.find(section="overhead", input=whole.input, how=NO_PYTHON):
            times = [np.array(results.products[each].values) for each in (whole, alone)]
            seconds = float(np.median(times[0] - times[1]))
            what = f"{whole.input}: time outside of the kernels"
            yield Goal("overhead", what, 5e-6, seconds, " us")


_GOALS: tuple[Callable[[Timings, str], Iterator[Goal]], ...] = (
    _gemv_dram, _gemv_cache, _batch, _gemm, _grouped, _low_bit, _published, _avx2, _overhead,
)  # fmt: skip


def _name(product: Product) -> str:
    return f"{product.encoding}, {plural(product.threads, 'thread')}"
