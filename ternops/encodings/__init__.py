"""How trits become bytes. Pure NumPy: these functions are the oracle of every layout."""

from types import ModuleType

from ternops.encodings import two_bit

#: Every encoding by its name; each module has pack, unpack, row_bytes, place and check.
ENCODINGS: dict[str, ModuleType] = {"two_bit": two_bit}
