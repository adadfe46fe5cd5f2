"""How fast, and at what energy, ternary models run on machines that need not be here.

    >>> from ternops import cost
    >>> from ternops.cost.layouts import SIZES
    >>> cost.predict(SIZES["70B"], cost.load("m2-ultra"), "base3").tokens_per_second

`load` gives a machine's profile, `predict` a decoder's time and energy on it.
"""

from ternops.cost.hardware import Hardware
from ternops.cost.predict import Prediction, predict
from ternops.cost.profile import load
from ternops.cost.tables import ProfileError

__all__ = ["Hardware", "Prediction", "ProfileError", "load", "predict"]
