"""What the documents show is what is printed, and every public name is in the reference."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
from importlib import import_module

import pytest

from ternops import __version__
from ternops.__main__ import main
from ternops.decoder.formats.loading import TINY
from tests.helpers import processes

DOCS = processes.ROOT / "docs"
TUTORIAL = (DOCS / "TUTORIAL.md").read_text("utf-8")
#: Blocks of code: a language and what is inside.
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def blocks(language):
    """The insides of the tutorial's blocks of a language."""
    return [text for kind, text in BLOCK.findall(TUTORIAL) if kind == language]


def test_the_tutorials_python(tmp_path, monkeypatch):
    """One after another, as they stand there; each prints what the next block shows."""
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    printed = []
    for block in blocks("python"):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(block, "TUTORIAL.md", "exec"), names)
        printed.append(out.getvalue())
    assert printed == blocks("text")


def test_the_tutorials_commands(tmp_path, monkeypatch, capfd):
    """What they print on stdout is what stands below them, its first lines at least."""
    pytest.importorskip("rich", reason="the commands need the extra llm")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    done = 0
    for block in blocks("console"):
        for part in block.removeprefix("$ ").split("\n$ "):
            command, _, shown = part.partition("\n")
            words, _, target = command.partition(" > ")
            python, *arguments = shlex.split(words.replace("TINY", str(TINY)))
            assert python == "python"
            if target:
                (tmp_path / target).write_text(processes.run_code(arguments[1]))
            else:
                assert arguments[:2] == ["-m", "ternops"]
                assert main(arguments[2:]) == 0
                found = capfd.readouterr().out
                assert found.startswith(shown.rstrip("\n")), found
            done += 1
    assert done >= 5


def test_every_public_name_is_in_the_reference():
    """Under the module that it is defined in."""
    text = (DOCS / "REFERENCE.md").read_text("utf-8")
    shown = set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))
    modules = ["ternops", "ternops.decoder", "ternops.cost"]
    for name in modules:
        module = import_module(name)
        for each in module.__all__:
            found = getattr(module, each)
            assert f"{found.__module__}.{found.__qualname__}" in shown, each
    layers = ("linear.TernaryLinear", "bitlinear.BitLinear", "replace.replace_linear",
              "replace.to_ternary", "transformers.accelerate")  # fmt: skip
    assert {f"ternops.torch.{each}" for each in layers} <= shown


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    """To files that are there, and headings that are in them."""
    for link in re.findall(r"\]\((?!https?:)([^()\s]+)\)", path.read_text("utf-8")):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
            names = [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings]
            assert anchor in names, link


def test_the_citation_is_of_this_version():
    text = (processes.ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {__version__}\n" in text
    assert f"## [{__version__}]" in (processes.ROOT / "CHANGELOG.md").read_text("utf-8")


def test_a_newcomers_commands_are_those_of_the_readme():
    """What .ci/first_hour.py times, by their subcommand."""
    root = processes.ROOT
    goals = runpy.run_path(str(root / ".ci" / "first_hour.py"))["GOALS"]
    readme = (root / "README.md").read_text("utf-8")
    assert [goal.name for goal in goals] == ["product", "text", "plot", "server"]
    for goal in goals[1:]:
        words = shlex.split(goal.command)
        assert f"python {' '.join(words[:3])} --" in readme, goal.command


def test_workflows_run_what_there_is():
    """Each `make` in them, and in .ci/run, is a target."""
    root = processes.ROOT
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text("utf-8"), re.MULTILINE))
    paths = [*(root / ".github" / "workflows").glob("*.yml"), root / ".ci" / "run"]
    assert len(paths) > 4
    for path in paths:
        for line in re.findall(
            r"^(?:\s*- run: )?make (.*)$", path.read_text("utf-8"), re.MULTILINE
        ):
            words = [word for word in shlex.split(line) if "=" not in word]
            assert set(words) <= targets, line
