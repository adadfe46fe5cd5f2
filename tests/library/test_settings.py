"""Variables of the environment: a bad one is one line, and no good one changes a bit."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

import ternops
from ternops.kernels.plan import KERNELS
from ternops.simd import host
from tests.helpers import processes
from tests.helpers.kernel_cache import COMPILED, ONE, READ, run

#: A command that does not end, after a signal or a stream that is closed, is one failure here.
pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("settings")]
X86 = pytest.mark.skipif(host.machine() not in ("x86_64", "amd64"), reason="not an x86 CPU")

#: Name, value, what the line says after them.
BAD = [
    ("TERNOPS_ISA", "AVX2", ": unknown tier; expected one of "),
    ("NUMBA_DISABLE_JIT", "1", ": ternops has no kernels without Numba's JIT"),
    ("NUMBA_NUM_THREADS", "0", ": expected 1 or more"),
    ("NUMBA_NUM_THREADS", "-3", ": expected 1 or more"),
    ("NUMBA_NUM_THREADS", "two", ": Numba cannot read it (invalid literal"),
    ("NUMBA_OPT", "x", ": Numba cannot read it (Environment variable `NUMBA_OPT`"),
    ("NUMBA_CPU_NAME", "nonsense", ": LLVM knows no processor nonsense"),
    ("NUMBA_FUNCTION_CACHE_SIZE", "-1", ": expected 0 or more"),
    ("NUMBA_CPU_NAME", "help", ": LLVM knows no processor help"),
    ("NUMBA_CPU_FEATURES", "+help", ": LLVM knows no feature +help"),
    ("NUMBA_CPU_FEATURES", "+nonsense", ": LLVM knows no feature +nonsense"),
    ("NUMBA_CPU_FEATURES", "avx2", ": 'avx2', expected +avx2 or -avx2"),
    pytest.param("NUMBA_CPU_FEATURES", "-64bit", ": LLVM cannot compile for that", marks=X86),
]


#: Of each variable one value, which stands for the others in what they have in common.
FIRST = {name: value for name, value, _ in BAD[-2::-1]}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value", "words"), BAD)
def test_a_bad_value_is_one_line(name, value, words):
    """Exit code 2 from a command, help all the same, an ordinary error from the import."""
    done = processes.python("-m", "ternops", "info", **{name: value})
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"ternops: error: {name}={value!r}{words}")
    if FIRST[name] != value:
        return
    done = processes.python("-m", "ternops", "generate", "--help", **{name: value})
    assert (done.returncode, done.stderr) == (0, "")
    assert "--prompt" in done.stdout
    for code in ("import ternops; ternops.matmul", "from ternops.decoder import Model"):
        done = processes.python("-c", code, **{name: value})
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == line.replace("ternops: error", "ValueError")


#: What pip writes for the command `ternops`, by a name that is not on anybody's path.
COMMAND = """
import sys
from ternops.__main__ import main
if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("glued", [False, True])
def test_the_command_prints_one_line_too(tmp_path, glued):
    """`ternops` and `python -Imternops` are `python -m ternops`."""
    path = tmp_path / "ternops"
    path.write_text(COMMAND)
    start = ["-Pmternops"] if glued else [str(path)]
    done = processes.python(*start, "info", TERNOPS_ISA="AVX2")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("ternops: error: TERNOPS_ISA='AVX2': unknown tier")
    done = processes.python(*start, "--help", TERNOPS_ISA="AVX2")
    assert (done.returncode, done.stderr) == (0, "")
    done = processes.python(*start, "info")
    assert done.stdout.startswith("cpu ")
    path.write_text(
        "import ternops\nfrom ternops import quantize\n"
        "print(*map(callable, (quantize, ternops.matmul)), hasattr(ternops, 'nothing'))"
    )
    assert processes.python(str(path)).stdout.split() == ["True", "True", "False"]


def test_a_warning_that_is_an_error():
    """With -W error a command ends with the line of it."""
    done = processes.python("-W", "error", "-m", "tests.programs.warn")
    assert (done.returncode, done.stderr) == (2, "ternops: error: lost\n")


@pytest.mark.slow
@pytest.mark.parametrize("module", ["bench.kernels", "bench.run"])
def test_the_benchmarks_print_one_line_too(module):
    """Exit code 2."""
    done = processes.python("-m", module, TERNOPS_ISA="AVX2")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("bench: error: TERNOPS_ISA='AVX2': unknown tier")


#: Settings that change how Numba compiles, or where it keeps what it compiled.
CHANGES = {
    "NUMBA_OPT": "0",
    "NUMBA_LOOP_VECTORIZE": "0",
    "NUMBA_SLP_VECTORIZE": "1",
    "NUMBA_LLVM_REFPRUNE_PASS": "0",
    "NUMBA_BOUNDSCHECK": "1",
    "NUMBA_DEBUGINFO": "1",
    "NUMBA_EXTEND_VARIABLE_LIFETIMES": "1",
    "NUMBA_FULL_TRACEBACKS": "1",
    "NUMBA_DEBUG_JIT": "1",
    "NUMBA_ENABLE_AVX": "0",
    "NUMBA_DISABLE_INTEL_SVML": "1",
    "NUMBA_ENABLE_PROFILING": "1",
    "NUMBA_ENABLE_SYS_MONITORING": "1",
    "NUMBA_JIT_COVERAGE": "1",
    "NUMBA_CAPTURED_ERRORS": "new_style",
    "NUMBA_DISABLE_PERFORMANCE_WARNINGS": "1",
    "NUMBA_DEVELOPER_MODE": "1",
    "NUMBA_THREADING_LAYER": "nonsense",
    "NUMBA_THREADING_LAYER_PRIORITY": "omp",
    "NUMBA_FUNCTION_CACHE_SIZE": "1",
    "NUMBA_CACHE_LOCATOR_CLASSES": "InTreeCacheLocator",
}
#: An instruction of a kernel, but for one with a name that counts what was compiled before.
INSTRUCTION = re.compile(r"\s+[a-z](?!.*_Z)")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A cache that a process under all of CHANGES filled."""
    folder = tmp_path_factory.mktemp("cache")
    hits, used = run(folder, **CHANGES)
    assert hits == COMPILED
    assert used.startswith(str(folder))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{}, CHANGES, {"NUMBA_OPT": "max"}, {"NUMBA_CACHE_LOCATOR_CLASSES": "nonsense"}],
    ids=["none", "all", "max", "nonsense"],
)
def test_no_setting_changes_which_kernels_are_used(compiled, settings):
    """What was compiled under all of them is found under others, and is exact: one key."""
    assert run(compiled, **settings)[0] == READ


@pytest.mark.slow
def test_no_setting_changes_the_machine_code():
    """Instruction for instruction."""
    _, multiply = KERNELS["two_bit", "one"]
    plain, changed = (
        processes.run_program("assembly", multiply.name, **each).splitlines()
        for each in ({}, CHANGES)
    )
    plain, changed = (
        [code for line in lines if INSTRUCTION.match(code := line.split("#")[0])]
        for lines in (plain, changed)
    )
    assert len(plain) > 100
    assert plain == changed


@pytest.mark.slow
def test_numbas_settings_are_restored_after_a_compilation():
    """Other code in the process is compiled as its user asked."""
    found = processes.run_program("numba_settings", **CHANGES)
    assert found.split() == ["0", "1", "1", "InTreeCacheLocator"]


@pytest.mark.slow
def test_a_relative_cache_folder(tmp_path):
    """It is below the folder that the process was in at first."""
    hits, used = run("relative", "--folder", str(tmp_path), ONE, "go:/")
    assert hits == COMPILED
    assert used.startswith(str(tmp_path / "relative" / "ternops"))


def command(*arguments, **streams):
    """A started `python -m ternops`, which buffers what it prints."""
    return subprocess.Popen(
        [sys.executable, "-m", "ternops", *arguments],
        env=processes.environment(PYTHONUNBUFFERED=""),
        cwd=processes.ROOT, text=True, **streams,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_while_it_starts():
    """At any moment: no traceback, and the exit code of an interruption if it came in time."""
    codes = set()
    for tenth in range(1, 7):
        with command("info", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            time.sleep(0.06 * tenth)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        # The interpreter itself, at its very beginning or end, ends with the signal; while it looks
        # for the command, nothing of the command runs yet.
        assert process.returncode in (0, 130, -signal.SIGINT)
        codes.add(process.returncode)
        if "site" not in errors and "_get_module_details" not in errors:
            assert errors == ""
    assert 130 in codes


@pytest.mark.parametrize("arguments", [["--help"], ["info"], ["generate", "--help"]])
def test_a_reader_that_is_gone_before_anything_is_printed(arguments):
    """One line, by help too, and nothing from Python's end."""
    read, write = os.pipe()
    os.close(read)
    with command(*arguments, stdout=write, stderr=subprocess.PIPE) as process:
        os.close(write)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors == "ternops: error: stdout: closed by its reader\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_stream_that_is_full(stream):
    """What is printed, or the error, is lost: exit code 2 and no traceback."""
    arguments = ["info"] if stream == "stdout" else ["generate"]
    with open("/dev/full", "w") as full:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: full}
        with command(*arguments, **streams) as process:
            printed = "".join(each or "" for each in process.communicate(timeout=60))
    assert process.returncode == 2
    expected = "ternops: error: [Errno 28] No space left on device\n"
    assert printed == (expected if stream == "stdout" else "")


def test_a_stderr_that_is_closed(tmp_path):
    """Errors are not printed into what the command prints, or writes."""
    shell = f"{sys.executable} -m ternops generate --prompt x --model /nonexistent 2>&-"
    done = subprocess.run(
        shell, shell=True, env=processes.environment(), cwd=processes.ROOT, check=False,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, b"")


def test_a_module_of_others_finds_all_names(tmp_path):
    """Only `python -m ternops` itself waits with the import of the kernels."""
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("import ternops")
    used = "(ternops.matmul, ternops.quantize, ternops.info)"
    (package / "__main__.py").write_text(f"import ternops; print(*map(callable, {used}))")
    path = os.pathsep.join((str(tmp_path), str(processes.ROOT)))
    done = processes.python("-m", "mine", "ternops", PYTHONPATH=path)
    assert done.stdout.split() == ["True"] * 3, done.stderr
    assert set(ternops.__all__) <= set(dir(ternops))
