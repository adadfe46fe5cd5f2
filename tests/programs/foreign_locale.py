"""Draw a run's plots in a locale that writes 1,5, without a display and without pyplot.

python -m tests.programs.foreign_locale FOLDER [LOCALE]

Without the name of such a locale one is made up.
"""

from __future__ import annotations

import locale
import os
import sys
from typing import Any


def main(folder: str, name: str = "") -> None:
    """The plots are written to the folder."""
    if name:
        locale.setlocale(locale.LC_ALL, name)
    else:
        comma: Any = {**locale.localeconv(), "decimal_point": ",", "thousands_sep": "."}
        locale.localeconv = lambda: comma
    from bench.pages import plot

    assert plot.main([folder]) == 0
    assert "matplotlib.pyplot" not in sys.modules


if __name__ == "__main__":
    os.environ.pop("DISPLAY", None)
    os.environ["MPLBACKEND"] = "TkAgg"
    main(*sys.argv[1:])
