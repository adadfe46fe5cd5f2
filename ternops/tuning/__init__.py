"""Tiles by measurement: what this machine multiplies fastest with, kept in a file for later.

    >>> ternops.tune()  # at most 90 seconds

`plan` says what is tried and where it is measured, `trials` measures, `build` compiles, `search`
chooses, `report` writes the file that `ternops.kernels.tuned` reads.
"""

from ternops.tuning.search import SECONDS, tune

__all__ = ["SECONDS", "tune"]
