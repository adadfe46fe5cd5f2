"""The amx tier on a CPU without AMX: its tile registers in memory, everything else as it is.

python -m tests.programs.emulated_amx [--compile-only] NAME [ARGUMENT ...]

runs another one of these programs after that; with --compile-only the instructions stay what they
are. They are replaced in `ternops.isa.x86` before the package that uses them is imported; threads
take turns, because there is one set of registers.
"""

from __future__ import annotations

import os
import runpy
import sys
import types
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
REGISTERS = np.zeros(8 * 1024 + 128, np.uint8)
BASE = REGISTERS.ctypes.data + -REGISTERS.ctypes.data % 64
LOCK = BASE + 8 * 1024


def install(instructions=True):
    """Make `import ternops` choose the amx tier, with emulated tiles or, to compile only, real."""
    os.environ["TERNOPS_ISA"] = "amx"
    for name in ("ternops", "ternops.isa"):
        # An empty package in its place, so that modules of it can be imported by themselves.
        package = types.ModuleType(name)
        package.__path__ = [str(ROOT / name.replace(".", "/"))]
        sys.modules[name] = package
    from ternops import simd
    from ternops.isa import x86
    from ternops.simd import folder, host

    folder.compile_for("emulated")  # nothing is to be found that was compiled for the real tiles
    real = host.features()
    host.features = lambda: real | {"amx-tile", "amx-int8"}
    x86.tiles_granted = lambda: True
    if instructions:
        _replace(simd, x86)
    del sys.modules["ternops"], sys.modules["ternops.isa"]


def _replace(simd, x86):
    load, store, pointer, inlined = simd.load, simd.store, simd.pointer, simd.inlined
    full, bitcast, pause = simd.full, simd.bitcast, simd.pause
    atomic_store, atomic_swap_if = simd.atomic_store, simd.atomic_swap_if
    u8, i8, i32 = simd.Vector("u8", 64), simd.Vector("i8", 64), simd.Vector("i32", 16)
    dot = x86.dot_avx512vnni

    @inlined
    def configure(source):
        while not atomic_swap_if(pointer(LOCK), 0, 1):
            pause()

    @inlined
    def release():
        atomic_store(pointer(LOCK), 0)

    @inlined
    def zero(tile):
        for row in range(16):
            store(pointer(BASE + 1024 * tile + 64 * row), full(i32, 0))

    @inlined
    def load_tile(tile, source, stride):
        for row in range(16):
            store(pointer(BASE + 1024 * tile + 64 * row), load(u8, source + row * stride))

    @inlined
    def store_tile(tile, target, stride):
        for row in range(16):
            store(target + row * stride, load(u8, pointer(BASE + 1024 * tile + 64 * row)))

    @inlined
    def dot_tiles(sums, left, right):
        for row in range(16):
            place = pointer(BASE + 1024 * sums + 64 * row)
            total = load(i32, place)
            for k in range(16):
                four = load(np.int32, pointer(BASE + 1024 * left + 64 * row + 4 * k))
                codes = bitcast(u8, full(i32, four))
                total = dot(total, codes, load(i8, pointer(BASE + 1024 * right + 64 * k)))
            store(place, total)

    x86.tile_configure, x86.tile_release, x86.tile_zero = configure, release, zero
    x86.tile_load, x86.tile_store, x86.tile_dot = load_tile, store_tile, dot_tiles


if __name__ == "__main__":
    compile_only = sys.argv[1] == "--compile-only"
    install(instructions=not compile_only)
    sys.argv = sys.argv[2:] if compile_only else sys.argv[1:]
    runpy.run_module(f"tests.programs.{sys.argv[0]}", run_name="__main__")
