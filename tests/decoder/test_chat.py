"""Chat templates make the text that transformers makes."""

from __future__ import annotations

import datetime

import pytest

from ternops.decoder.chat import ChatTemplate

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
