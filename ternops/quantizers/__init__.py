"""How floats are rounded to few levels: a record each, by its name.

Formulas, their papers and sections are in the files of this package, one a family; `method` has
what they share, `choice` what arguments must be. All is NumPy.
"""

from ternops.quantizers.choice import (
    DEFAULTS,
    METHODS,
    Choice,
    Quantized,
    choose,
    holders,
    quantize,
)
from ternops.quantizers.method import Group, Levels, Method

__all__ = [
    "DEFAULTS",
    "METHODS",
    "Choice",
    "Group",
    "Levels",
    "Method",
    "Quantized",
    "choose",
    "holders",
    "quantize",
]
