"""How matrices of few values become bytes: a record each.

Packing is plain NumPy, the oracle of each layout; unpacking is kernel code. `blocks` has what
two_bit and base3 share, `panels` how these are packed with a scale a group of columns, and what
three_bit, nibble and eight_bit share, `row_groups` what tl1 and tl2 share, `encoding` what all do.
"""

from collections.abc import Sequence

from ternops.encodings.base3 import BASE3
from ternops.encodings.blocks import Blocks
from ternops.encodings.eight_bit import EIGHT_BIT
from ternops.encodings.encoding import Encoding
from ternops.encodings.nibble import NIBBLE
from ternops.encodings.one_bit import ONE_BIT
from ternops.encodings.panels import Panels
from ternops.encodings.three_bit import THREE_BIT
from ternops.encodings.tl1 import TL1
from ternops.encodings.tl2 import TL2
from ternops.encodings.two_bit import TWO_BIT

#: Every encoding by its name.
ENCODINGS: dict[str, Encoding] = {
    each.name: each for each in (TWO_BIT, BASE3, TL1, TL2, ONE_BIT, THREE_BIT, NIBBLE, EIGHT_BIT)
}
#: The names of those that hold trits, as the linear layers of BitNet b1.58 need it, and no more.
TERNARY = tuple(name for name, each in ENCODINGS.items() if each.values == (-1, 0, 1))
#: What packs a matrix that has a scale a group of columns, by the name of the encoding.
PANELS = {
    name: Panels.of(each) if isinstance(each, Blocks) else each
    for name, each in ENCODINGS.items()
    if isinstance(each, Blocks | Panels)
}


def layout_of(name: str, group: int, levels: Sequence[int] = ()) -> Encoding:
    """What packs an encoding's matrices: with a scale a group of columns (0: none), and with levels
    other than its values, panels."""
    encoding = ENCODINGS[name]
    return PANELS[name] if group or (levels and levels != encoding.values) else encoding
