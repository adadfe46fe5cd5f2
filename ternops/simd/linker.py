"""Object code brought into the process by LLVM's linker, which knows nothing of how it was made."""

from __future__ import annotations

import functools
from typing import Any

from ternops.simd.host import llvm

#: Keeps the machine code in memory.
_engines: list[Any] = []


@functools.cache
def _initialize() -> None:
    llvm().initialize_native_target()
    llvm().initialize_native_asmprinter()


def load(code: bytes, symbol: str) -> int:
    """The address of a function of an object file."""
    _initialize()
    # An engine each: no symbol of one object is ever seen by another.
    machine = llvm().Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm().create_mcjit_compiler(llvm().parse_assembly(""), machine)
    engine.add_object_file(llvm().ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = int(engine.get_function_address(symbol))
    if not address:
        raise RuntimeError(f"{symbol}: not in its object file")
    _engines.append(engine)
    return address
