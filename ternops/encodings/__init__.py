"""How matrices of few values become bytes: a record each.

Packing is plain NumPy, the oracle of each layout; unpacking is kernel code. `blocks` has what
two_bit and base3 share, `panels` how these are packed with a scale a group of columns, `row_groups`
what tl1 and tl2 share, `encoding` what all do.
"""

from ternops.encodings.base3 import BASE3
from ternops.encodings.blocks import Blocks
from ternops.encodings.encoding import Encoding
from ternops.encodings.one_bit import ONE_BIT
from ternops.encodings.panels import Panels
from ternops.encodings.tl1 import TL1
from ternops.encodings.tl2 import TL2
from ternops.encodings.two_bit import TWO_BIT

#: Every encoding by its name.
ENCODINGS: dict[str, Encoding] = {each.name: each for each in (TWO_BIT, BASE3, TL1, TL2, ONE_BIT)}
#: The names of those that hold trits, as the linear layers of BitNet b1.58 need it.
TERNARY = tuple(name for name, each in ENCODINGS.items() if {-1, 0, 1} <= set(each.values))
#: What packs a matrix that has a scale a group of columns, by the name of the encoding.
PANELS = {name: Panels.of(each) for name, each in ENCODINGS.items() if isinstance(each, Blocks)}


def layout_of(name: str, group: int) -> Encoding:
    """What packs an encoding's matrices: with a scale a group of columns, panels (0: none)."""
    return PANELS[name] if group else ENCODINGS[name]
