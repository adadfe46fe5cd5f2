"""Chat templates make the text that transformers makes."""

from __future__ import annotations

import datetime
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from ternops.decoder import template_process
from ternops.decoder.chat import ChatTemplate
from tests.helpers import internals, processes

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
MESSAGES = [
    {"role": "system", "content": "Be <b>brief</b> & 'kind'."},
    {"role": "user", "content": " Why? é 漢\n"},
    {"role": "assistant", "content": "Because."},
    {"role": "user", "content": "So?"},
]
#: Templates in the manner of those that models come with, and what they make of MESSAGES.
TEMPLATES = {
    "roles": (
        "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m.content | trim }}<|end|>"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
        "<s><|system|>Be <b>brief</b> & 'kind'.<|end|><|user|>Why? é 漢<|end|>"
        "<|assistant|>Because.<|end|><|user|>So?<|end|><|assistant|>",
    ),
    "blocks": (
        "{% for m in messages %}\n  {% if m.role == 'user' %}\nQ: {{ m.content }}\n  {% endif %}\n"
        "{% endfor %}\nA:",
        "Q:  Why? é 漢\n\nQ: So?\nA:",
    ),
    "capitals": (
        "{%- set ns = namespace(n=0) -%}{%- for m in messages -%}{%- set ns.n = ns.n + 1 -%}"
        "{{ ns.n }}{{ m['role'] | capitalize }}: {{ m['content'][:2] + eos_token }}{%- endfor -%}",
        "1System: Be</s>2User:  W</s>3Assistant: Be</s>4User: So</s>",
    ),
    "json": (
        "{{ messages[:2] | tojson }}{{ {'b': 1, 'a': [2]} | tojson(indent=1) }}",
        '[{"role": "system", "content": "Be <b>brief</b> & \'kind\'."}, '
        '{"role": "user", "content": " Why? é 漢\\n"}]{\n "b": 1,\n "a": [\n  2\n ]\n}',
    ),
    "loops": (
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
        "{{ loop.index }}{% if m.role == 'assistant' %}{% break %}{% endif %}{% endfor %}",
        "23",
    ),
    "generation": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}!"
        "{% endgeneration %}{% else %}{{ m.role }} {% endif %}{% endfor %}",
        "system user Because.!user ",
    ),
    "what is not there": (
        "{% if tools %}x{% endif %}{% if pad_token is defined %}y{% endif %}{{ nothing }}z", "z"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_text_of_a_template(name):
    """Special tokens, blocks without lines of their own, filters, loop controls."""
    source, expected = TEMPLATES[name]
    assert ChatTemplate(source, SPECIAL).render(MESSAGES) == expected


@pytest.mark.peers
@pytest.mark.parametrize("name", TEMPLATES)
def test_transformers_makes_the_same_text(name):
    """Of all templates above."""
    from transformers.utils.chat_template_utils import render_jinja_template

    source, expected = TEMPLATES[name]
    texts, _ = render_jinja_template(
        [MESSAGES], chat_template=source, add_generation_prompt=True, **SPECIAL
    )
    assert texts == [expected]


def test_the_date_of_a_template():
    """strftime_now gives today."""
    text = ChatTemplate("{{ strftime_now('%Y') }}", {}).render([])
    assert abs(int(text) - datetime.date.today().year) <= 1


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{% for m in messages %}", "line 1"),
        ("a\nb\n{{ }}", "line 3"),
        ("{% nothing %}", "nothing"),
        ("{% generation %}x", "line 1"),
        ("{{ raise_exception('Roles must\n alternate') }}", "Roles must alternate"),
        ("{{ messages[0].content.nothing.more }}", "nothing"),
        ("{{ 1 / 0 }}", "zero"),
        ("{{ messages + 1 }}", "concatenate"),
        ("{{ messages | length(3) }}", "len()"),
        ("{{ messages.append(3) }}", "unsafe"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ messages.__init__.__globals__ }}", "__init__"),
        ("{{ strftime_now(3) }}", "str"),
        ("{% include '/etc/passwd' %}", "loader"),
        ("{% for i in range(10000000) %}{% endfor %}", "Range too big"),
    ],
)
def test_a_template_that_fails(source, words):
    """One line that says why; a template sees no more than it is given."""
    with pytest.raises(ValueError, match="chat template: ") as caught:
        ChatTemplate(source, SPECIAL).render(MESSAGES)
    message = str(caught.value)
    assert "\n" not in message
    assert words in message


#: What a template does that came with a model of somebody who means harm.
HOSTILE = {
    "for ever": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "within a product": "{{ 3 ** (9 ** 9) }}",
    "a long text": "{{ 'a' * 10 ** 10 }}",
    "a wide field": "{{ '%999999999d' % 1 }}{{ '%999999999d' % 1 }}",
    "doubled": "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(99) %}"
    "{% set n.x = n.x ~ n.x %}{% endfor %}",
    "lists in lists": "{% set n = namespace(x=['aaaaaaaa']) %}{% for i in range(40) %}"
    "{% set n.x = [n.x, n.x, n.x] %}{% endfor %}{{ n.x }}",
    "much output": "{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}",
    "spaces": "{{ 'a' | center(10 ** 10) }}",
    "deep": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_template_has_little_time_and_memory(name):
    """It is one line, as any template that fails, and the next one is rendered as ever."""
    with pytest.raises(ValueError, match=r"^chat template: [^\n]{1,450}\Z"):
        ChatTemplate(HOSTILE[name], SPECIAL).render(MESSAGES)
    assert ChatTemplate("{{ bos_token }}", SPECIAL).render([]) == "<s>"


def test_a_template_finds_no_file(tmp_path):
    """Not even code that has got out of Jinja's sandbox opens one, starts a process or writes."""
    (tmp_path / "secret").write_text("secret")
    program = f"""
import json, runpy, sys
process = runpy.run_path({template_process.__file__!r})
sys.path[:] = {sys.path!r}
import jinja2, os, subprocess
process["_limit"]()
for attempt in (
    lambda: open({str(tmp_path / "secret")!r}).read(),
    lambda: open({str(tmp_path / "new")!r}, "w"),
    lambda: os.listdir({str(tmp_path)!r}),
    lambda: subprocess.run(["true"]),
):
    try:
        attempt()
    except OSError:
        continue
    raise SystemExit("it was done")
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "new").exists()


def test_many_threads_and_a_fork_ask_for_templates():
    """Each has its own answer."""
    template = ChatTemplate("{{ messages[0].content }}", SPECIAL)

    def ask(number):
        return template.render([{"role": "user", "content": str(number)}])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(200))) == [*map(str, range(200))]
    program = """
import os
from ternops.decoder.chat import ChatTemplate
template = ChatTemplate("{{ bos_token }}", {"bos_token": "a"})
child = os.fork()
assert template.render([]) == "a"
if not child:
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert template.render([]) == "a"
"""
    processes.run_code(program)


def test_a_process_that_was_ended_is_started_anew():
    """By whom ever, as where the system ran out of memory."""
    ChatTemplate("a", SPECIAL).render([])
    internals.template_process().kill()
    internals.template_process().wait()
    assert ChatTemplate("b", SPECIAL).render([]) == "b"
    with pytest.raises(ValueError, match="no JSON"):
        ChatTemplate("c", SPECIAL).render([{"role": object()}])
