"""Jobs as object files: what they may hold, how they are told apart, and how they are loaded."""

from __future__ import annotations

import ctypes

import llvmlite.binding as llvm
import numpy as np
import pytest

from ternops.simd import Entry, TeamJob, call_foreign, linker, objects, pointer, store
from ternops.simd.lowering import symbols


def stepping(record, team, thread, threads):
    for i in range(0, threads, thread):
        store(pointer(record), i)


def raising(record, team, thread, threads):
    if thread > 5:
        raise ValueError("five")


def allocating(record, team, thread, threads):
    numbers = np.empty(threads, np.int64)
    numbers[:] = thread
    store(pointer(record), numbers.sum())


@pytest.mark.parametrize("function", [stepping, raising, allocating])
def test_code_that_can_raise_is_no_job(function):
    """Nobody could catch it: an error in Python, when it is compiled."""
    with pytest.raises(TypeError, match=f"^{function.__name__}: kernels may not "):
        _ = TeamJob(function).address


def compiled(text):
    """LLVM's text as an object file."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    return machine.emit_object(llvm.parse_assembly(text))


CALLS = """
declare i64 @syscall(i64)
declare i64 @PyLong_FromLong(i64)
define i64 @f(i64 %x) {
  %y = call i64 @syscall(i64 %x)
  %z = call i64 @{}(i64 %y)
  ret i64 %z
}
"""


def test_what_an_object_needs_from_outside():
    """All of it, and nothing else: what is on the list passes, anything besides is named."""
    code = compiled(CALLS.replace("{}", "PyLong_FromLong"))
    assert sorted(symbols.undefined(code)) == ["PyLong_FromLong", "syscall"]
    with pytest.raises(TypeError, match=r"^job: kernels may not call PyLong_FromLong$"):
        symbols.check_symbols("job", code)
    symbols.check_symbols("job", compiled(CALLS.replace("{}", "syscall")))
    assert list(symbols.undefined(b"MZ another format")) == []


def test_two_objects_with_a_symbol_of_the_same_name():
    """Each is by itself: neither is called instead of the other."""
    texts = [f"define i64 @f(i64 %x) {{ %y = add i64 %x, {n}\n ret i64 %y }}" for n in (1, 2)]
    addresses = [linker.load(compiled(text), "f") for text in texts]
    assert len(set(addresses)) == 2


def test_an_entry_takes_and_gives_integers():
    """Of 64 bits, also below 0, and addresses; whatever is returned is one."""

    @Entry
    def difference(a, b):
        return a - b

    @Entry
    def larger(a, b):
        return a > b

    for a, b in ((3, 5), (2**62, 1), (-1, -(2**62)), (0, 0)):
        assert difference.call(a, b) == a - b
        assert larger.call(a, b) == int(a > b)


def test_jobs_that_close_over_different_values():
    """Of one name and place: each is compiled by itself."""

    def make(number):
        @TeamJob
        def write(record, team, thread, threads):
            store(pointer(record), np.int64(number))

        return write

    found = np.zeros(1, np.int64)
    for number in (3, 4):
        job = make(number)
        assert not job.is_there
        from ternops.team import TEAM

        TEAM.run(job, found, 1)
        assert job.is_there
        assert found[0] == number


ORIGIN = objects.Origin("digest", "x86_64-linux", "cpu", ("+avx2", "-sve"))
KERNELS = [("a.b", b"code of b", "symbol"), ("c", b"", "empty"), ("d", bytes(range(256)), "d")]


def test_a_file_of_kernels(tmp_path):
    """What was written is read, kernel by kernel; what is not in it is None."""
    path = tmp_path / "file"
    path.write_bytes(objects.as_bytes(ORIGIN, KERNELS))
    found = objects.open_objects(path)
    assert found.origin == ORIGIN
    assert [(key, *found.read(key)) for key in found.kernels] == KERNELS
    assert found.read("e") is None
    path.unlink()
    assert found.read("d") is None
    assert objects.open_objects(path) is None


def test_no_damage_is_read(tmp_path):
    """Every byte changed, every length cut: the kernel as it was, or nothing, and no exception."""
    path = tmp_path / "file"
    data = objects.as_bytes(ORIGIN, KERNELS)
    damaged = [data[:length] for length in range(len(data))]
    damaged += [data[:i] + bytes((data[i] ^ 255,)) + data[i + 1 :] for i in range(len(data))]
    right = {key: (code, symbol) for key, code, symbol in KERNELS}
    lost = 0
    for each in damaged:
        path.write_bytes(each)
        found = objects.open_objects(path)
        read = {key: found.read(key) for key in right} if found else dict.fromkeys(right)
        assert all(value in (None, right[key]) for key, value in read.items())
        lost += None in read.values()
    assert lost == len(damaged)


def calling(address, value):
    call_foreign(address, value, 2, 3, 4, 5, 6, 7, -8)
    return value + 1


def test_a_foreign_function_is_called_by_its_address():
    """With pointers and integers of 64 bits, and with those of 32, which are their low halves."""
    given = []

    def note(*values):
        given.append(values)
        return 5

    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int64, *[ctypes.c_int] * 6, ctypes.c_int64)
    function = kind(note)
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert Entry(calling).call(address, 1 << 40) == (1 << 40) + 1
    assert given == [(1 << 40, 2, 3, 4, 5, 6, 7, -8)]
