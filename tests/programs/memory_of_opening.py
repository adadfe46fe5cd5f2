"""What opening a model's file takes: its weights, bytes per token, and bytes of memory.

python -m tests.programs.memory_of_opening FILE
"""

from __future__ import annotations

import resource
import sys

from ternops.decoder.formats.loading import load_weights, open_checkpoint
from ternops.decoder.formats.packed import PackedFile


def peak() -> int:
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    before = peak()
    checkpoint = open_checkpoint(sys.argv[1])
    assert isinstance(checkpoint, PackedFile)
    weights = load_weights(checkpoint, checkpoint.encoding)
    print(checkpoint.config.linear_weights, weights.bytes_per_token, peak() - before)
