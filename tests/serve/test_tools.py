"""Calls of tools: asked for, read, streamed, and what only looks like one."""

from __future__ import annotations

import json
import math

import pytest

from ternops.serve import tools
from ternops.serve.requests import Tool
from ternops.serve.tools import HERMES, LLAMA, QWEN_XML, ToolCalls, format_of
from tests.helpers.serving import make_serving, running, talker

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello"}]
TOOLS = [
    {"type": "function", "function": {
        "name": name, "description": "What it is like there.", "parameters": {
            "type": "object", "properties": {"city": {"enum": ["Ulm", "Rome"]}},
            "required": ["city"], "additionalProperties": False,
        }}}
    for name in ("weather", "traffic")
]  # fmt: skip
TRAFFIC = {"type": "function", "function": {"name": "traffic"}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Ulm"}}\n</tool_call>'


@pytest.fixture
def known():
    return [Tool(**each) for each in TOOLS]


@pytest.mark.parametrize("choice", ["required", TRAFFIC], ids=["any", "named"])
def test_a_call_that_is_required(talking, choice):
    """The model was never taught to call; the grammar leaves it no choice."""
    body = {"messages": HELLO, "tools": TOOLS, "tool_choice": choice, "max_tokens": 300}
    body |= {"seed": 1, "temperature": 1.5}
    answer = talking.ask(CHAT, **body)["choices"][0]
    assert answer["finish_reason"] == "tool_calls"
    assert answer["message"]["content"] is None
    (call,) = answer["message"]["tool_calls"]
    names = ("weather", "traffic") if choice == "required" else ("traffic",)
    assert call["function"]["name"] in names
    assert json.loads(call["function"]["arguments"])["city"] in ("Ulm", "Rome")
    events = [each["choices"][0] for each in talking.stream(CHAT, **body)]
    (delta,) = [each["delta"] for each in events if "tool_calls" in each["delta"]]
    assert delta["tool_calls"][0]["function"] == call["function"]
    assert delta["tool_calls"][0]["index"] == 0
    assert events[-1]["finish_reason"] == "tool_calls"
    assert not any(each["delta"].get("content") for each in events)


def test_what_a_tool_answers_is_read(talking):
    """A call and its result, as clients send them back; none is wanted any more."""
    call = {"id": "call_1", "type": "function",
            "function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}  # fmt: skip
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "rain", "tool_call_id": "call_1"},
    ]
    body = {"messages": messages, "max_tokens": 3, "tools": TOOLS}
    assert talking.ask(CHAT, **body, tool_choice="none")["choices"][0]["message"]["content"]
    call["function"]["arguments"] = "Ulm"
    response = talking.post(CHAT, **body)
    assert response.status_code == 400
    assert "no JSON object" in response.json()["error"]["message"]


def fed(form, known, text, step, *most):
    calls = ToolCalls(form, known, *most)
    shown, found = "", []
    for start in range(0, len(text) + step, step):
        piece = text[start : start + step]
        new, more = calls.feed(piece, start + step >= len(text) + step)
        shown, found = shown + new, found + more
    return shown, [(each.function.name, each.function.arguments) for each in found]


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
@pytest.mark.parametrize(
    ("text", "shown", "count"),
    [
        (CALL, "", 1),
        (f"Let me see. {CALL}\n{CALL}", "Let me see. ", 2),
        ("a <tool b <tool_cal", "a <tool b <tool_cal", 0),
        ("<tool_call>no JSON</tool_call> x", "<tool_call>no JSON</tool_call> x", 0),
        (CALL.replace("weather", "unknown"), CALL.replace("weather", "unknown"), 0),
        ("<tool_call>\n{", "<tool_call>\n{", 0),
    ],
)
def test_calls_between_marks(known, text, shown, count, step):
    """However the text is cut."""
    assert fed(HERMES, known, text, step) == (shown, count * [("weather", '{"city": "Ulm"}')])


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
def test_one_call_at_most(known, step):
    """What comes behind it does not count."""
    text = f"Let me see. {CALL}\n{CALL} and more"
    found = fed(HERMES, known, text, step, 1)
    assert found == ("Let me see. ", [("weather", '{"city": "Ulm"}')])


def test_calls_that_are_not_to_be_parallel(talking, monkeypatch):
    """Are one at most."""
    made = []

    def noted(form, known, most):
        made.append(most)
        return ToolCalls(form, known, most)

    monkeypatch.setattr(tools, "ToolCalls", noted)
    for is_parallel in (False, True, None):
        body = {"messages": HELLO, "max_tokens": 1, "tools": TOOLS}
        talking.ask(CHAT, **body, parallel_tool_calls=is_parallel)
    assert made == [1, math.inf, math.inf]


@pytest.mark.parametrize("step", [1, 4, 1000])
def test_calls_without_marks(known, step):
    """Llama's: the whole answer is a call, or none of it."""
    call = '{"name": "weather", "parameters": {"city": "Ulm"}}'
    assert fed(LLAMA, known, call, step) == ("", [("weather", '{"city": "Ulm"}')])
    for text in ("It rains {here}.", '{"name": "x", "parameters": {}}', "{", " \n"):
        assert fed(LLAMA, known, text, step) == (text, [])


def test_the_template_decides():
    assert format_of('{{ "<tool_call>" }}') is HERMES
    assert format_of('Respond with {"name": function name, "parameters": ...}') is LLAMA
    xml = "<tool_call>\n<function=example>\n<parameter=example_1>\nvalue_1\n</parameter>"
    assert format_of(xml) is QWEN_XML


def test_a_template_that_knows_no_tools(tmp_path):
    """Is not asked to write any; neither is a model without a template asked to chat."""
    folder = talker(tmp_path)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with running(make_serving(folder)) as server:
        response = server.post(CHAT, messages=HELLO, tools=TOOLS)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "tools"
        assert server.ask(CHAT, messages=HELLO, max_tokens=1)
    (folder / "chat_template.jinja").unlink()
    with running(make_serving(folder)) as server:
        response = server.post(CHAT, messages=HELLO)
        assert response.status_code == 400
        assert "no chat template" in response.json()["error"]["message"]
        assert server.client.get("/v1/models").json()["data"][0]["chat"] is False
