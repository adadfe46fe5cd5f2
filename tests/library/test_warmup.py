"""Compiling ahead: what "auto" may choose, and nothing is compiled in a product afterwards."""

from __future__ import annotations

from tests.helpers import processes

CODE = """
import sys
from numba.core import ccallback
compiled = []
original = ccallback.CFunc._compile_uncached
def counting(self):
    compiled.append(self.__name__)
    return original(self)
ccallback.CFunc._compile_uncached = counting
import numpy as np
import ternops
seconds = ternops.warmup(decoder={decoder})
assert seconds > 0
first = list(compiled)
for rows, tokens in ((8, 1), (8, 3), (8, 300), (2048, 1)):
    W = ternops.pack(np.ones((rows, 2048), np.int8))
    assert (np.ones((tokens, 2048), np.int8) @ W.T == 2048).all()
if {decoder}:
    from ternops.decoder import Model
    list(Model.from_pretrained(threads=2).generate([1, 2], 2))
print(*compiled[len(first):])
"""


def test_nothing_is_left_to_compile():
    """For products of any number of tokens, and for a model; one line on stderr says so."""
    for decoder in (False, True):
        done = processes.python("-c", CODE.replace("{decoder}", str(decoder)))
        assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith("ternops: compiling for ")
        assert line.endswith(" s")
