"""`python -m ternops chat`: turns are kept, bad ones are refused in one line, it ends cleanly."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys

import pytest

from ternops.decoder import Model
from ternops.decoder.chat import ChatTemplate
from ternops.decoder.formats import convert
from ternops.decoder.formats.loading import TINY, open_checkpoint
from tests.helpers import processes
from tests.helpers.marks import slow_but

#: A chat that waits forever, for a key or for an end, is what some of these look for.
pytestmark = pytest.mark.timeout(400)

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}\n"
    "{% else %}# {{ m.role }}: {{ m.content }}\n{% endif %}{% endfor %}"
)


@pytest.fixture
def talker(tmp_path):
    """The tiny model with a chat template, which it was never taught."""
    folder = shutil.copytree(TINY, tmp_path / "talker")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def expected_answers(folder, turns, count, system=None):
    """What greedy decoding answers to each turn, by the library, without any cache."""
    checkpoint = open_checkpoint(folder)
    tokenizer, model = checkpoint.tokenizer(), Model.from_pretrained(folder, threads=1)
    template = ChatTemplate(checkpoint.chat_template(), checkpoint.special_tokens())
    messages = [{"role": "system", "content": system}] if system else []
    answers = []
    for turn in turns:
        messages.append({"role": "user", "content": turn})
        prompt = tokenizer.encode(template.render(messages), add_special_tokens=False).ids
        assert prompt[0] == 0 != prompt[1]
        answers.append(tokenizer.decode(list(model.generate(prompt, count))))
        messages.append({"role": "assistant", "content": answers[-1]})
    return answers


def chat(folder, text, *options, **settings):
    """The finished process of a chat whose turns are piped."""
    command = [sys.executable, "-m", "ternops", "chat", "--model", str(folder), "--threads", "1"]
    return subprocess.run(
        [*command, *options], input=text, env=processes.environment(**settings),
        cwd=processes.ROOT, capture_output=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("kind", slow_but(["folder", "packed"], "folder"))
def test_a_conversation(talker, tmp_path, kind):
    """Each turn is answered with all before it; blank lines do not count; figures are on stderr."""
    turns, system = ["def f(x):", "class A:", "import os"], "Python"
    model = talker
    if kind == "packed":
        model = tmp_path / "talker.safetensors"
        convert.convert(talker, model, "two_bit")
    text = "\n".join([turns[0], "", "  ", *turns[1:]]).encode()
    options = ["--max-new-tokens", "15", "--system", system]
    done = chat(model, text, *options)
    assert done.returncode == 0, done.stderr
    answers = expected_answers(talker, turns, 15, system)
    assert done.stdout.decode() == "".join(f"{answer}\n" for answer in answers)
    figures = [line for line in done.stderr.decode().splitlines() if line.startswith("[prompt")]
    assert len(figures) == 3
    # Of the second prompt only what was not there before had to be read.
    read = [int(line.split()[1]) for line in figures]
    assert read[1] < 20 > read[2]
    assert all("15 token(s), " in line for line in figures)


def test_a_turn_of_several_lines(talker):
    """Between quotes; nothing in there is a command, nor blank lines left out."""
    text = 'a\n"""def f(x):\n\n    /save x\n"""\n"""one"""\n"""\nthe end'
    turns = ["a", "def f(x):\n\n    /save x", "one", "the end"]
    done = chat(talker, text.encode(), "--max-new-tokens", "9")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == "".join(f"{x}\n" for x in expected_answers(talker, turns, 9))
    assert b'ends within """' in done.stderr


def test_a_conversation_is_saved_and_gone_on_with(talker, tmp_path):
    """Nothing of it is read again; after a file that is none the chat goes on."""
    turns, path = ["def f(x):", "class A:", "import os"], tmp_path / "session"
    options = ["--max-new-tokens", "9", "--system", "Python"]
    answers = [f"{x}\n" for x in expected_answers(talker, turns, 9, "Python")]
    done = chat(talker, f"{turns[0]}\n{turns[1]}\n/save {path}\n".encode(), *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == "".join(answers[:2])
    text = f"/load {path}x\n/load\n/load {path}\n{turns[2]}\n/save {path}/x\n"
    done = chat(talker, text.encode(), *options[:2])
    assert done.stdout.decode() == answers[2]
    assert done.returncode == 2
    errors = [line for line in done.stderr.decode().splitlines() if "error: " in line]
    assert [f"{path}x" in errors[0], "/load: expected" in errors[1], len(errors)] == [True, True, 3]
    assert f"/save: '{path}/x': " in errors[2]
    assert int(asked(done)[0].split()[1]) < 15
    (talker / "chat_template.jinja").write_text("")


@pytest.mark.parametrize("end", ["/exit", "/quit ", "/bye"])
def test_help_and_an_end(talker, end):
    """What begins like a command and is none is said; nothing is read behind the end."""
    done = chat(talker, f"/help\n/helpless\n{end}\nmore\n".encode(), "--max-new-tokens", "3")
    assert done.returncode == 0, done.stderr
    assert b"/save FILE keeps the conversation" in done.stderr
    assert len(asked(done)) == 1


def test_json_and_control_tokens(talker):
    """A line for each answer; names of control tokens in a turn are text if asked."""
    turn = b"a <|end_of_text|> b\n"
    counts = []
    for options in ([], ["--no-control-tokens"]):
        done = chat(talker, turn, "--json", "--max-new-tokens", "3", *options)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert len(found["tokens"]) == len(found["token_seconds"]) == 3
        assert found["finish_reason"] == "length"
        counts.append(found["prompt_tokens"].count(1))
    assert counts == [1, 0]


def test_the_tiny_model_talks():
    """It has a template; without --model it is that."""
    command = [sys.executable, "-m", "ternops", "chat", "--threads", "1", "--max-new-tokens", "3"]
    done = subprocess.run(
        command, input=b"def f(x):\n", env=processes.environment(), cwd=processes.ROOT,
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(asked(done)) == 1


def test_an_answer_that_fills_the_context(talker):
    """Is said to end there; the next turn forgets and is answered."""
    done = chat(talker, b"a b c d\nx\n", "--context", "40", "--max-new-tokens", "100")
    assert done.returncode == 0, done.stderr
    assert b"the context is full: the answer ends here" in done.stderr
    assert len(asked(done)) == 2


@pytest.mark.slow
def test_a_conversation_longer_than_the_context(talker):
    """The oldest turns are forgotten, which is said; the chat goes on."""
    done = chat(talker, b"a b c d\n" * 6, "--context", "60", "--max-new-tokens", "20")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(b"messages are forgotten") >= 2
    assert done.stderr.count(b"[prompt") == 6


def complaint(done, words, code=2):
    """A process ended with one line of error; nothing of it is a traceback."""
    assert done.returncode == code, done.stderr
    lines = done.stderr.decode().splitlines()
    lines = [line for line in lines if not line.startswith(("loading", "["))]
    assert len(lines) == 1, lines
    assert lines[0].startswith("ternops: error: ")
    assert all(word in lines[0] for word in words.split()), lines[0]


@pytest.mark.slow
def test_models_without_a_chat(talker):
    """A turn beyond the context, a model without a template, with a broken one."""
    complaint(chat(talker, b"x = 1; " * 300), "stdin: turn tokens 512")
    complaint(chat(talker, b"x", "--context", "1"), "--context 1: 2 512")
    (talker / "chat_template.jinja").unlink()
    complaint(chat(talker, b"x"), "--model no chat template generate")
    (talker / "chat_template.jinja").write_text("{% for %}")
    complaint(chat(talker, b"x"), "chat template: line 1")
    (talker / "chat_template.jinja").write_text("{{ raise_exception('no system') }}")
    complaint(chat(talker, b"x"), "chat template: no system")
    (talker / "chat_template.jinja").write_text("")
    complaint(chat(talker, b"x"), "chat template: no text")


@pytest.mark.slow
def test_nothing_is_said(talker):
    """An empty stdin ends the chat at once."""
    done = chat(talker, b"")
    assert (done.returncode, done.stdout) == (0, b"")
    done = chat(talker, b"\n \n")
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"LC_ALL": "C.UTF-8"}, {"LC_ALL": "C", "PYTHONUTF8": "1"}])
def test_stdin_that_is_no_text(talker, settings):
    """Bytes that are not UTF-8, however Python decodes them."""
    complaint(chat(talker, b"a\xffb\n", **settings), "stdin: not UTF-8")
    complaint(chat(talker, b"x", "--system", b"a\xff", **settings), "--system: not UTF-8")


def asked(done):
    """The figures of the answers that a process gave."""
    return [line for line in done.stderr.decode().splitlines() if line.startswith("[prompt")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bad", "words"),
    [(b"x = 1; " * 300, b"error: stdin: a turn of"), (b"a\xffb", b"error: stdin: not UTF-8"),
     (b"refuse", b"error: chat template: No."), (b"<unknown>", b"'<unknown>' is 1024 and to"),
     (b"fail", b"error: chat template: ")],
)  # fmt: skip
def test_a_bad_turn_does_not_count(talker, bad, words):
    """One line; what was said before and comes after is a conversation without it. Code 2."""
    refusing = (
        "{% if messages[-1].content == 'refuse' %}{{ raise_exception('No.') }}{% endif %}"
        "{% if messages[-1].content == 'fail' %}{{ messages[0].nothing.more }}{% endif %}"
    )
    (talker / "chat_template.jinja").write_text(refusing + TEMPLATE)
    (talker / "added_tokens.json").write_text('{"<unknown>": 1024}')
    turns = ["def f(x):", "class A:", "import os"]
    text = b"\n".join([turns[0].encode(), bad, *(turn.encode() for turn in turns[1:])])
    done = chat(talker, text, "--max-new-tokens", "15")
    assert done.returncode == 2
    answers = expected_answers(talker, turns, 15)
    assert done.stdout.decode() == "".join(f"{answer}\n" for answer in answers)
    assert done.stderr.count(words) == 1
    assert done.stderr.count(b"error:") == 1
    assert b"forgotten" not in done.stderr
    assert len(asked(done)) == 3


@pytest.mark.slow
def test_files_from_windows(talker):
    """A byte order mark and carriage returns are not part of a turn; other separators are."""
    options = ["--max-new-tokens", "5"]
    plain = chat(talker, "a\nb\u2028c\0\n".encode(), *options)
    marked = chat(talker, "\ufeffa\r\nb\u2028c\0\r\n\r\n".encode(), *options)
    assert plain.returncode == marked.returncode == 0
    assert plain.stdout == marked.stdout
    prompts = [[line.split()[1] for line in asked(done)] for done in (plain, marked)]
    assert prompts[0] == prompts[1]
    assert len(prompts[0]) == 2


@pytest.mark.slow
def test_a_line_of_a_byte_order_mark_is_blank(talker):
    """An editor's empty file is not a turn."""
    done = chat(talker, "\ufeff\n\ufeff\r\na\n".encode(), "--max-new-tokens", "2")
    assert done.returncode == 0
    assert len(asked(done)) == 1


@pytest.mark.slow
def test_a_locale_of_ascii(talker):
    """Turns are UTF-8 all the same."""
    text, options = "café\n".encode(), ["--max-new-tokens", "2"]
    done = chat(talker, text, *options, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    expected = asked(chat(talker, text, *options))[0].split()[1]
    assert [line.split()[1] for line in asked(done)] == [expected]


@pytest.mark.slow
def test_a_system_message_beyond_the_context(talker):
    """Is named: no turn would fit."""
    complaint(
        chat(talker, b"hi\n", "--system", "x = 1; " * 300), "--system and stdin: a turn tokens 512"
    )


@pytest.mark.slow
def test_stdin_that_is_closed(talker):
    """One line, exit code 2."""
    command = f"{sys.executable} -m ternops chat --model {talker} <&-"
    done = subprocess.run(
        ["sh", "-c", command], env=processes.environment(), cwd=processes.ROOT,
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    complaint(done, "stdin: closed")


def test_ctrl_c_stops_an_answer(talker):
    """Its figures are printed, what was said is kept, the next turn is answered."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.programs.interrupted_chat", str(talker)],
        input=b"def f(x):\nclass A:\n",
        env=processes.environment(), cwd=processes.ROOT, capture_output=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = [line for line in done.stderr.decode().splitlines() if line.startswith("[prompt")]
    counts = [int(line.split("; ")[1].split()[0]) for line in figures]
    assert len(counts) == 2
    assert counts[0] < 15
    assert counts[1] > counts[0]
    assert b"Traceback" not in done.stderr


def test_a_reader_that_goes_away(talker):
    """Ends the chat: no turn is answered for nobody."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "ternops", "chat", "--model", str(talker), "--max-new-tokens", "5"],
        input=b"def f(x):\n" * 3, stdout=write, stderr=subprocess.PIPE, timeout=300, check=False,
        env=processes.environment(), cwd=processes.ROOT,
    )  # fmt: skip
    os.close(write)
    complaint(done, "stdout: closed by its reader")


class Terminal:
    """A chat in a terminal of its own."""

    def __init__(self, folder):
        self._main, side = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ternops", "chat", "--model", str(folder),
             "--max-new-tokens", "5"],
            stdin=side, stdout=side, stderr=subprocess.PIPE, env=processes.environment(),
            cwd=processes.ROOT, start_new_session=True,
        )  # fmt: skip
        os.close(side)
        self.output = b""

    def wait_for(self, text):
        """Read until the text is there; it must come within two minutes."""
        while text not in self.output:
            assert select.select([self._main], [], [], 120)[0], self.output
            self.output += os.read(self._main, 1024)

    def write(self, text):
        os.write(self._main, text)

    def interrupt(self):
        """Ctrl-C, and again as a person would: readline misses one just before it waits."""
        for _ in range(12):
            os.kill(self.process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=10)
                return

    def end(self):
        """The exit code, and what is on stderr."""
        with contextlib.suppress(OSError):  # the other side is closed
            while select.select([self._main], [], [], 120)[0] and (
                data := os.read(self._main, 1024)
            ):
                self.output += data
        _, err = self.process.communicate(timeout=60)
        os.close(self._main)
        return self.process.returncode, err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="terminals of POSIX")
@pytest.mark.parametrize("key", ["Ctrl-C", "Ctrl-D"])
def test_a_terminal(talker, key):
    """There is a prompt; Ctrl-C ends the chat with 130, Ctrl-D with 0."""
    terminal = Terminal(talker)
    try:
        terminal.wait_for(b"> ")
        terminal.write(b"def f(x):\n")
        terminal.output = b""
        terminal.wait_for(b"> ")
        if key == "Ctrl-D":
            terminal.write(b"\x04")
        else:
            terminal.interrupt()
        code, err = terminal.end()
    finally:
        terminal.process.kill()
    assert code == (0 if key == "Ctrl-D" else 130)
    assert b"Traceback" not in err
    assert err.count(b"[prompt") == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="terminals of POSIX")
def test_a_bad_turn_in_a_terminal(talker):
    """The next one is asked for; the code at the end is 0."""
    (talker / "chat_template.jinja").write_text(
        "{% if messages[-1].content == 'no' %}{{ raise_exception('Never.') }}{% endif %}" + TEMPLATE
    )
    terminal = Terminal(talker)
    try:
        for turn in (b"no\n", b"def f(x):\n", b"\x04"):
            terminal.wait_for(b"> ")
            terminal.output = b""
            terminal.write(turn)
        code, err = terminal.end()
    finally:
        terminal.process.kill()
    assert code == 0
    assert err.count(b"error: chat template: Never.") == err.count(b"[prompt") == 1


@pytest.mark.slow
@pytest.mark.parametrize("package", ["jinja2", "rich"])
def test_without_a_package_the_error_says_what_to_install(talker, tmp_path, package):
    """One line with the command."""
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError({package!r})")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"from ternops.__main__ import main; sys.exit(main(['chat', '--model', {str(talker)!r}]))"
    )
    done = processes.python("-c", code)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"ternops: error: {package} is not installed: pip install 'ternops[llm]'"
    ]
