"""What a process of its own compiles, and what it reads from the cache of compiled kernels."""

from __future__ import annotations

from tests.helpers import processes

#: Prints at its end the jobs compiled, the functions read from the disk, and the cache's folder.
COUNTING = """
import atexit, importlib, sys
from unittest import mock
import numpy as np
import ternops
from ternops import team
from ternops.kernels import reference, tuning
from numba.core import ccallback
from tests.helpers import cases
# Tell the jobs that are compiled and not read from the disk.
compiled, original = [], ccallback.CFunc._compile_uncached
def counting(self):
    compiled.append(self.__name__)
    return original(self)
ccallback.CFunc._compile_uncached = counting
tuning.BYTES_A_THREAD = 1
def report():
    print(*sorted(compiled))
    print(*[sum(f.stats.cache_hits.values()) for f in (team._launch, team._work)])
    print(ternops.info()["cache"])
atexit.register(report)
from ternops.kernels import call
x = cases.activations(3, 1021)
def right(encoding, kind):
    trits = cases.trits(37, 1021, encoding=encoding)
    with mock.patch.object(call, "kind_of", return_value=kind) as kind_of:
        some = x[:1] if kind in cases.OF_ONE_TOKEN else x
        found = ternops.matmul(some, ternops.pack(trits, encoding=encoding).T, threads=2)
    assert kind_of.called
    assert cases.same_bits(found, reference.matmul_int32(some, trits)), (encoding, kind)
"""
#: One product, and one of every kernel.
ONE = COUNTING + 'right("two_bit", "one")'
EVERY = COUNTING + "for key in cases.KINDS: right(*key)"

#: What ONE prints where it had to compile, and what it and EVERY print where all was there.
COMPILED = (["gemv_two_bit", "linear", "place_tokens"], ["0", "0"])
READ = ([], ["1", "1"])


def run(folder, code=ONE, **environment):
    """Run code with that cache: (compiled jobs, hits of launch and worker), cache folder."""
    environment = {"NUMBA_CACHE_DIR": str(folder), **environment}
    # -P: the ternops that PYTHONPATH names first, not that of the current folder.
    done = processes.python("-P", "-c", code, **environment)
    assert done.returncode == 0, done.stderr
    compiled, hits, used = done.stdout.splitlines()
    return (compiled.split(), hits.split()), used
