"""`python -m ternops info`, where a warning comes in the middle: `python -W error -m ...`."""

from __future__ import annotations

import sys
import warnings

import ternops
from ternops import __main__


def info() -> dict[str, str]:
    """In the place of `ternops.info`."""
    warnings.warn("lost", stacklevel=1)
    return {}


if __name__ == "__main__":
    ternops.info = info
    sys.exit(__main__.main(["info"]))
