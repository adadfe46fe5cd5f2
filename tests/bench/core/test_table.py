"""One definition of a table: in a terminal and in Markdown it says the same."""

from __future__ import annotations

from rich.console import Console

from bench.core.table import Cell, number, speed, table, text
from bench.pages import run_tables
from tests.bench.run_results import made_up

COLUMNS = {
    "size": lambda each: text(each[0]),
    "times": lambda each: number(each[1], "{:.2f}x"),
    "unknown": lambda each: text(None),
    "": lambda each: Cell(each[2], mark="good"),
}


def shown(made):
    console = Console(width=200)
    with console.capture() as captured:
        console.print(made)
    return captured.get()


def test_markdown():
    """Numbers to the right; no column in which nothing is known; no cell that ends early."""
    made = table("t", "A title", COLUMNS, [("1B", 2.5, "a|b"), ("3B", None, "")])
    assert made.markdown == (
        "| size | times |  |\n| --- | ---: | --- |\n| 1B | 2.50x | a\\|b |\n| 3B | - |  |"
    )


def test_a_terminal_shows_the_same_words():
    """Without markup of its own, with the notes behind and lines between groups."""
    rows = [("[red]", 2.5, "faster"), ("3B", 1.0, "")]
    made = table("t", "A title", COLUMNS, rows, ("a [note]",), group=lambda each: each[0])
    output = shown(made)
    for word in ("A title", "[red]", "2.50x", "faster", "a [note]"):
        assert word in output
    assert output.count("├") == 1


def test_speeds_have_three_digits():
    """0.123, 1.20, 12.3, 123.4; a dash for none."""
    assert [speed(each).text for each in (0.1234, 1.2, 12.34, 123.41, None)] == [
        "0.123", "1.20", "12.3", "123.4", "-"
    ]  # fmt: skip


def test_the_tables_of_a_run_are_one_in_both_forms():
    """Every cell of every table, in a terminal that is wide enough and in Markdown."""
    results = made_up(["125M", "700M"])
    tables = [*run_tables.all_of(results), run_tables.fp16_beside_llama(results)]
    assert len(tables) == 8
    for each in tables:
        console = Console(width=2000)
        with console.capture() as captured:
            console.print(each)
        for row in each.rows:
            line = " ".join(cell.text for cell in row).split()
            assert any(line == found.replace("│", " ").split() for found in
                       captured.get().splitlines()), line  # fmt: skip
        assert len(each.markdown.splitlines()) == len(each.rows) + 2
