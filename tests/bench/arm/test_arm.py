"""bench.arm: qemu's log and llvm-mca's answer read, and the page that is written of the rows."""

import json
import sys

import pytest

from bench.arm import __main__ as command
from bench.arm import executed, mca, packages, page, predicted, stored
from bench.arm.packages import Unavailable, do
from bench.arm.stored import Count, Cycles, Part, Speed
from bench.core.errors import ResultsError
from bench.core.results import MODELLED
from bench.published import paper
from tests.bench import run_results

NOP, CALL, CALL_AT, RETURN = 0xD503201F, 0x97FFFF52, 0xD63F0100, 0xD65F03C0
KERNEL, OTHER, CALLEE, CALLER = 0x7000, 0x9000, 0x8000, 0x4000
ENTRIES = {KERNEL: "gemv_base3"}


def translated(at, instructions, last=NOP):
    """What qemu logs of a block when it meets it."""
    words = [NOP] * (instructions - 1) + [last]
    lines = [f"{at + 4 * n:#x}:  {word:08x}  .byte    0x0\n" for n, word in enumerate(words)]
    return ["----------------\n", "IN: \n", *lines, "\n"]


def traces(*addresses, cpu=0):
    """What qemu logs of executions."""
    return [
        f"Trace {cpu}: 0x7fffedc7e000 [00001001/{at:016x}/00000001/00008200] \n" for at in addresses
    ]


LOOP, AFTER, LAST = KERNEL + 12, KERNEL + 32, KERNEL + 40
#: A kernel of 3 instructions, a loop of 5, a call of 2, and 4 to its return; what it calls has 7.
BLOCKS = [
    *translated(CALLER, 6, CALL_AT), *translated(KERNEL, 3), *translated(LOOP, 5),
    *translated(AFTER, 2, CALL), *translated(CALLEE, 7, RETURN), *translated(LAST, 4, RETURN),
    *translated(CALLER + 24, 9),
]  # fmt: skip
BODY = (KERNEL, LOOP, LOOP, LOOP, AFTER, CALLEE, LAST)
INSTRUCTIONS = 3 + 3 * 5 + 2 + 7 + 4


def counts(*lines, entries=ENTRIES, found=None):
    return executed.counts(lines, entries, entries if found is None else found)


def test_what_counts_is_from_the_entry_to_the_return():
    """With what is called, and nothing of the caller's."""
    log = [*BLOCKS, *traces(CALLER, CALLEE, *BODY, CALLER + 24, CALLEE)]
    assert counts(*log) == {"gemv_base3": INSTRUCTIONS}


def test_several_kernels_are_counted_apart():
    """Each by its own entry; one may stand where the log ends."""
    log = [*BLOCKS, *translated(OTHER, 8, RETURN), *traces(*BODY, CALLER + 24, OTHER)]
    entries = {**ENTRIES, OTHER: "gemv_tl1"}
    assert counts(*log, entries=entries) == {"gemv_base3": INSTRUCTIONS, "gemv_tl1": 8}


def test_blocks_that_were_not_executed_do_not_count():
    """One that qemu stopped before its first instruction, those of another thread."""
    again = ["Stopped execution of TB chain before 0x7fffedc7e000 [0000000000007000] \n"]
    log = [*BLOCKS, *traces(KERNEL), *again, *traces(LOOP, cpu=1), *traces(*BODY)]
    assert counts(*log) == {"gemv_base3": INSTRUCTIONS}


def test_a_block_may_be_translated_anew():
    """With another length, which counts from then on."""
    log = [*BLOCKS, *traces(KERNEL, LOOP), *translated(LOOP, 2), *traces(LOOP, LAST)]
    assert counts(*log) == {"gemv_base3": 3 + 5 + 2 + 4}


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (traces(*BODY, *BODY), "gemv_base3: entered a second time, expected once"),
        (traces(CALLER, CALLEE), "gemv_base3: never entered, expected once"),
        (traces(*BODY[:-1]), "gemv_base3: does not return"),
        (traces(*BODY[:-3]), "gemv_base3: does not return"),
        (traces(*BODY[:-2], LAST), "gemv_base3: calls what the log does not have, at 0x7028"),
        (traces(*BODY[:-1], LOOP), "gemv_base3: returns to 0x700c, where it was not called"),
        (traces(KERNEL, 0x5000), "qemu's log: no instructions of the block at 0x5000"),
    ],
)
def test_what_cannot_be_counted_is_refused(log, words):
    """With one line."""
    with pytest.raises(ResultsError) as error:
        counts(*BLOCKS, *log)
    assert str(error.value) == words


def test_a_kernel_at_another_address_is_refused():
    """As the process that was logged says; the log was of what is elsewhere."""
    with pytest.raises(ResultsError, match=r"kernels at 0x9000, expected them at 0x7000"):
        counts(*BLOCKS, *traces(*BODY), found={OTHER: "gemv_base3"})


class FakeEmulator:
    """Processes with kernels at these addresses in turn; with a log if one is asked for."""

    version = "1.2.3"

    def __init__(self, *addresses):
        self.addresses, self.calls = list(addresses), []

    def run(self, cpu, *arguments, wrapper=(), options=()):
        at = self.addresses.pop(0) if len(self.addresses) > 1 else self.addresses[0]
        self.calls.append(options)
        self.returncode = 0
        if options:
            with open(options[options.index("-D") + 1], "w") as log:
                log.writelines([*BLOCKS, *traces(*BODY)])
        about = {
            "tier": "neon", "versions": {"LLVM": "22.1.0"}, "rows": 4, "columns": 9, "tokens": [1],
            "kernels": ["gemv_base3"], "addresses": [at],
        }  # fmt: skip
        self.answer = json.dumps(about), ""
        return self

    def communicate(self):
        return self.answer


def measured(monkeypatch, tmp_path, *addresses):
    emulator = FakeEmulator(*addresses)
    monkeypatch.setattr(executed, "Emulator", lambda folder: emulator)
    monkeypatch.setattr(executed, "CPUS", ("neoverse-n1",))
    return executed.measure(tmp_path), emulator.calls


@pytest.mark.parametrize("before", [(), (OTHER,)])
def test_the_process_is_logged_where_it_was_seen(monkeypatch, tmp_path, before):
    """Once more where the first one had its code elsewhere."""
    part, calls = measured(monkeypatch, tmp_path, *before, KERNEL)
    row = Count("neoverse-n1", "neon", "gemv_base3", 4, 9, 1, INSTRUCTIONS)
    assert part == Part({"qemu": "1.2.3", "LLVM": "22.1.0"}, [row])
    assert row.each == INSTRUCTIONS / 36
    assert [len(options) > 0 for options in calls] == [False, *[True] * (1 + len(before))]
    assert calls[-1][-1] == f"{KERNEL - 0x8000:#x}+0x10000"


def test_code_that_keeps_moving_is_refused(monkeypatch, tmp_path):
    """After two tries."""
    with pytest.raises(ResultsError, match="kernels at 0x7000, expected them at 0x7004"):
        measured(monkeypatch, tmp_path, KERNEL + 8, KERNEL + 4, KERNEL)


ASSEMBLY = """
f:
\tmov\tx0, x1
.LBB0_1:
\tldr\tq0, [x0]
\tsdot\tv1.4s, v2.16b, v0.16b
\tsubs\tx0, x0, #16
\tb.ne\t.LBB0_1
.LBB0_2:                                // %hot
\tldp\tq0, q3, [x0]                   // 32-byte Folded Reload
\tsdot\tv1.4s, v2.16b, v0.16b
\tsdot\tv4.4s, v2.16b, v3.16b
\tsubs\tx0, x0, #32
\tb.ne\t.LBB0_2
\tret
"""
ANSWER = {
    "TargetInfo": {"CPUName": "x", "Resources": ["N1UnitB", "N1UnitD.\x00"]},
    "CodeRegions": [{"SummaryView": {
        "BlockRThroughput": 2.5, "Instructions": 5000, "Iterations": 1000, "TotalCycles": 3010,
    }}],
}  # fmt: skip


def test_the_hot_loop_is_taken_out():
    """The one that does the most in a turn, without remarks."""
    lines, weights = mca.loop_of("gemv_two_bit", ASSEMBLY)
    assert weights == 32
    assert lines[0] == ".LBB0_2:"
    assert lines[1] == "\tldp\tq0, q3, [x0]"
    assert len(lines) == 6


def test_a_simulation_is_of_one_turn():
    """Cycles over all turns, and the model by its units."""
    row = mca.parsed("cortex-x", "gemv_two_bit", 32, json.dumps(ANSWER))
    assert row == Cycles("cortex-x", "Neoverse N1", "gemv_two_bit", 32, 5, 2.5, 3.01)
    assert row.each == 3.01 / 32
    assert mca.model_of(["CyUnitB"]) == "Cyclone (Apple A7)"
    assert mca.model_of(["V9UnitB"]) == "V9"


@pytest.mark.parametrize(
    "answer", ["", "{}", "[]", '{"CodeRegions": []}', '{"CodeRegions": [{"SummaryView": {}}]}']
)
def test_an_answer_without_a_summary_is_refused(answer):
    """One line that names kernel and core."""
    with pytest.raises(ResultsError, match=r"llvm-mca, gemv_tl1 on cortex-x: no summary: "):
        mca.parsed("cortex-x", "gemv_tl1", 32, answer)


PARTS = {
    "executed": Part({"qemu": "10.0"}, [
        Count("neoverse-n1", "neon-dotprod", "gemv_tl1", 64, 2560, 1, 32768),
        Count("cortex-a72", "neon", "gemv_tl1", 64, 2560, 1, 49152),
        Count("neoverse-n1", "neon-dotprod", "gemm_base3", 64, 2560, 16, 262144),
    ]),
    "mca": Part({"llvm-mca": "22.1.8"}, [
        Cycles("neoverse-n1", "Neoverse N1", "gemv_tl1", 64, 21, 8.0, 16.0),
        Cycles("neoverse-n1", "Neoverse N1", "gemv_two_bit", 512, 80, 48.0, 64.0),
    ]),
    "predicted": Part({"ternops": "0.1"}, [
        Speed("m2-ultra", "M2", "7B", "fp16", 8, MODELLED, 10.0, True),
        Speed("m2-ultra", "M2", "7B", "tl1", 8, MODELLED, 65.0, True),
        Speed("raspberry-pi-5", "A Pi", "7B", "base3", 4, MODELLED, 5.5, False),
    ], ["7B, float16: A Pi: too large"]),
}  # fmt: skip


@pytest.fixture
def target(tmp_path, monkeypatch):
    """Where the command writes."""
    monkeypatch.setattr(command, "TARGET", tmp_path / "arm-static")
    return tmp_path / "arm-static"


def test_the_page_says_what_the_rows_say(tmp_path):
    """Every figure, beside what made it; the first sentence says that no time was measured."""
    text = page.write(tmp_path, PARTS).read_text("utf-8")
    assert text.split("\n\n")[1].startswith("**No time was measured on ARM.")
    assert "| kernel | tokens | weights | neoverse-n1 (neon-dotprod) | cortex-a72 (neon) |" in text
    assert "| gemv_tl1 | 1 | 64 x 2560 | 0.200 | 0.300 |\n" in text
    assert "| gemm_base3 | 16 | 64 x 2560 | 0.100 | - |\n" in text
    assert "| neoverse-n1 | Neoverse N1 | two_bit 0.125 (0.094) | tl1 0.250 (0.125) |\n" in text
    published = paper.DECODE["arm"]["7B"]
    figures = f"{published.fp16} | {published.ternary} | {published.speedup:.2f}x"
    assert f"| 7B | modelled | <= 10 | <= 65 | 6.50x | {figures} |\n" in text
    assert "| 7B | modelled | - | 5.5 | - |\n" in text
    assert "- 7B, float16: A Pi: too large\n" in text
    for line in ("By qemu 10.0.", "By llvm-mca 22.1.8.", "By ternops 0.1."):
        assert line in text
    assert "\n\n\n" not in text
    assert "loops.csv" not in text
    (tmp_path / "loops.csv").touch()
    assert "loops.csv" in page.write(tmp_path, PARTS).read_text("utf-8")


def test_a_page_of_nothing_has_no_tables(tmp_path):
    """Where no part could be made."""
    assert "|" not in page.write(tmp_path, {}).read_text("utf-8")


def test_what_is_stored_comes_back(tmp_path):
    """Equal rows, and none of a folder without any."""
    assert stored.load(tmp_path) == {}
    stored.save(tmp_path, PARTS)
    found = stored.load(tmp_path)
    assert list(found) == list(PARTS)
    for name, part in PARTS.items():
        assert found[name] == part._replace(left_out=list(part.left_out))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 7}', "{", "[" * 100_000])
def test_other_files_are_refused(tmp_path, text):
    """One line that names the file."""
    (tmp_path / stored.ARM_FILE).write_text(text)
    with pytest.raises(ResultsError, match=r"arm\.json: no results of bench\.arm"):
        stored.load(tmp_path)


@pytest.mark.parametrize(
    ("way", "value", "words"),
    [
        (("mca",), None, "mca: is None, expected an object"),
        (("mca", "versions"), {"x": 1}, "mca.versions: is {'x': 1}, expected an object of texts"),
        (("mca", "left_out"), [1], r"mca.left_out: is \[1\], expected a list of texts"),
        (("mca", "rows"), {}, "mca.rows: is {}, expected a list"),
        (("mca", "rows", 1), {}, r"mca.rows\[1\]: is {}, expected an object with core, model, "),
        (("mca", "rows", 1, "cycles"), "9", r"rows\[1\].cycles: is '9', expected a number above 0"),
        (("mca", "rows", 1, "weights"), 0, r"rows\[1\].weights: is 0, expected a number above 0"),
        (("mca", "rows", 1, "core"), 3, r"rows\[1\].core: is 3, expected a str"),
        (("predicted", "rows", 0, "at_most"), 1, r"rows\[0\].at_most: is 1, expected a bool"),
        (("predicted", "rows", 0, "kind"), "measured", "kind: is 'measured', expected modelled"),
    ],
)
def test_damaged_results_are_named_with_their_key(tmp_path, way, value, words):
    """One line: the file, the key, what it is and what was expected."""
    path = stored.save(tmp_path, PARTS)
    run_results.damage(path, way, value)
    with pytest.raises(ResultsError, match=words) as error:
        stored.load(tmp_path)
    assert str(error.value).startswith(f"{path}: ")


def test_every_prediction_is_modelled():
    """Of every machine and size, or a line says why not; the paper's encoding on its machine."""
    part = predicted.measure()
    assert {row.kind for row in part.rows} == {MODELLED}
    asked = {
        (name, size, encoding) for name in predicted.MACHINES for size in paper.DECODE["arm"]
        for encoding in predicted.encodings(name)
    }  # fmt: skip
    found = {(row.profile, row.size, row.encoding) for row in part.rows}
    assert found < asked
    assert len(part.left_out) == len(asked) - len(found)
    assert {row.profile for row in part.rows if row.encoding == "tl1"} == {"m2-ultra"}
    assert ("raspberry-pi-5", "7B", "fp16") not in found
    assert any(line.startswith("7B, fp16: Raspberry Pi 5: ") for line in part.left_out)


def test_one_part_keeps_the_others(target, monkeypatch, capsys):
    """As they were; both files are named."""
    target.mkdir()
    stored.save(target, PARTS)
    new = Part({"llvm-mca": "23"}, PARTS["mca"].rows)
    monkeypatch.setitem(command.PARTS, "mca", lambda: new)
    assert command.main(["--only", "mca"]) == 0
    found = stored.load(target)
    assert found["mca"].versions == {"llvm-mca": "23"}
    assert found["executed"] == PARTS["executed"]._replace(left_out=[])
    assert capsys.readouterr().out == f"{target / 'arm.json'}\n{target / 'README.md'}\n"
    assert "llvm-mca 23" in (target / "README.md").read_text("utf-8")


def unavailable():
    """A part without its tool."""
    raise Unavailable("apt-get: not found")


def test_a_part_without_its_tool_is_skipped(target, monkeypatch, capsys):
    """With one line, and no table."""
    for name in ("executed", "mca"):
        monkeypatch.setitem(command.PARTS, name, unavailable)
    assert command.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"{name}: skipped: apt-get: not found" for name in ("executed", "mca")]
    assert list(stored.load(target)) == ["predicted"]
    assert "simulated\n" not in (target / "README.md").read_text("utf-8")


def test_the_tools_need_this_kind_of_machine(target, monkeypatch, capsys):
    """Elsewhere the parts that need them are skipped."""
    monkeypatch.setattr(packages.platform, "machine", lambda: "riscv64")
    assert command.main(["--only", "executed"]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line == "executed: skipped: this is riscv64, expected x86_64"


def test_a_damaged_file_stays_as_it_is(target, capsys):
    """One line, and no page."""
    target.mkdir()
    (target / stored.ARM_FILE).write_text("{")
    assert command.main(["--only", "predicted"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"bench.arm: {target / stored.ARM_FILE}: no results of bench.arm")
    assert [each.name for each in target.iterdir()] == [stored.ARM_FILE]


@pytest.mark.parametrize("arguments", [["--only", "x"], ["--only"], ["x"], ["--x"]])
def test_bad_arguments_cost_one_line(target, capsys, arguments):
    """Beside the usage; nothing is written."""
    with pytest.raises(SystemExit) as error:
        command.main(arguments)
    assert error.value.code == 2
    usage, line = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: python -m bench.arm ")
    assert line.startswith("python -m bench.arm: error: ")
    assert not target.exists()


def test_a_program_that_fails_is_unavailable(tmp_path):
    """With its last word, or the reason that it did not start."""
    with pytest.raises(Unavailable, match="failed: so it is"):
        do([sys.executable, "-c", "raise SystemExit('no\\nso it is')"], tmp_path)
    with pytest.raises(Unavailable, match="no-such-program"):
        do(["no-such-program"], tmp_path)
    assert do([sys.executable, "-c", "print(input())"], tmp_path, "a word") == "a word\n"
