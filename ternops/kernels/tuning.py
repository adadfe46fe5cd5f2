"""How kernels share out and walk through weights: literal numbers, each with its reason."""

from __future__ import annotations

from ternops.cpu_caches import last_level_bytes
from ternops.encodings import ENCODINGS
from ternops.isa.detect import FAMILY, TIER
from ternops.kernels.tiles import Tile, default_tile
from ternops.kernels.tuned import tuned
from ternops.simd import inlined

#: Weights are prefetched this many bytes ahead, over all streams of a thread: the best of 2048 to
#: 32768 for weights in DRAM, with 1, 2 and 4 streams alike.
PREFETCH_AHEAD = 8192

#: A further thread must find this many bytes of weights times tokens, or waking it costs more.
BYTES_A_THREAD = 1 << 17


def chosen_tile(encoding: str, kind: str) -> Tile:
    """The tile of an encoding for a shape class here: what was measured, or the table's."""
    if found := tuned().tiles.get((encoding, kind)):
        return found
    return default_tile(ENCODINGS[encoding], kind, TIER, FAMILY)


def auto() -> tuple[str, str]:
    """What "auto" stands for here, for weights that the last-level cache holds and for more."""
    return tuned().auto or TIER.auto


def best_encoding(weights: int) -> str:
    """What "auto" stands for here; weights: how many are used together."""
    cached, streamed = auto()
    return cached if ENCODINGS[cached].nbytes(1, weights) <= last_level_bytes() else streamed


def is_slow(encoding: str) -> bool:
    """Whether the tier unpacks an encoding more slowly than memory brings the best one's bytes."""
    return ENCODINGS[encoding].unpacks_slowly and encoding not in auto()


def useful_threads(threads: int, work: int) -> int:
    """At most `threads`, fewer where `work` (bytes of weights times tokens) is too small."""
    return max(1, min(threads, work // BYTES_A_THREAD))


@inlined
def stream_step(count, rows):
    """How far apart the rows of a tile lie that walks down `count` rows as `rows` streams.

    Odd, so that the streams of a matrix with a power of two in its shape do not all start at the
    same offset of a page, and with it in the same bank of the memory. Up to 2 * rows - 1 rows are
    left over, none where there is one stream.
    """
    if rows == 1:
        return count
    step = count // rows
    return max(0, step - 1 + step % 2)


@inlined
def panel_step(count, rows, stride, panel):
    """`stream_step` of the next of `count` rows of `stride` bytes: as many as a panel holds, or all
    if it is 0. Panels are about equal."""
    if panel > 0 and count > 0:
        most = max(1, panel // stride)
        count = count // ((count + most - 1) // most)
    return stream_step(count, rows)
