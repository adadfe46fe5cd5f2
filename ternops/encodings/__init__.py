"""How trits become bytes. Pure NumPy: these functions are the oracle of every layout.

`blocks` has what two_bit and base3 share, `row_groups` what tl1 and tl2 share, `common` the rest.
"""

from types import ModuleType

from ternops.encodings import base3, tl1, tl2, two_bit

#: Every encoding by its name. Each module has SLACK, nbytes, pack, unpack and check; a block
#: encoding also FIELDS, BLOCK, row_bytes and place, a look-up encoding tables and multiply.
ENCODINGS: dict[str, ModuleType] = {"two_bit": two_bit, "base3": base3, "tl1": tl1, "tl2": tl2}
