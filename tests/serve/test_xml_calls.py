"""Calls of tools in tags: read, streamed, required by a grammar, and what only looks like one."""

from __future__ import annotations

import json

import pytest

from ternops.serve.requests import Tool
from ternops.serve.tools import QWEN_XML, ToolCalls, required
from tests.helpers.serving import TEMPLATE, make_serving, running, talker

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "hot": {"type": "boolean"},
        "least": {"type": ["number", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "place": {"$ref": "#/$defs/Place"},
        "unit": {"anyOf": [{"enum": ["C", "F"]}, {"type": "null"}]},
        "note": {},
    },
    "required": ["city"],
    "$defs": {
        "Place": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]},
    },
}
#: That the tiny model's context has room for.
SMALL = {
    "type": "object",
    "properties": {
        "unit": {"enum": ["C", "F"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "hot": {"type": "boolean"}, "at": {"$ref": "#/$defs/A"},
    },
    "required": ["unit", "at"],
    "$defs": {"A": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3}},
}  # fmt: skip
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now"}},
]
SERVED = [
    {"type": "function", "function": {"name": "small", "parameters": SMALL}},
    {"type": "function", "function": {"name": "now"}},
    {"type": "function", "function": {
        "name": "say", "parameters": {"properties": {"text": {"type": "string"}}}}},
]  # fmt: skip


def xml(function, *values):
    """A call as Qwen3-Coder writes it."""
    tags = [f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in values]
    return f"<tool_call>\n<function={function}>\n{''.join(tags)}</function>\n</tool_call>"


def fed(text, step):
    """What is shown of a text that comes in pieces, and its calls."""
    calls = ToolCalls(QWEN_XML, [Tool(**each) for each in TOOLS])
    shown, found = "", []
    for start in range(0, len(text) + step, step):
        new, more = calls.feed(text[start : start + step], start + step >= len(text) + step)
        shown, found = shown + new, found + more
    return shown, [(each.function.name, json.loads(each.function.arguments)) for each in found]


@pytest.mark.parametrize("step", [1, 5, 1000])
@pytest.mark.parametrize(
    ("text", "shown", "expected"),
    [
        (xml("weather", ("city", "Ulm")), "", [("weather", {"city": "Ulm"})]),
        (
            f"Let me see.\n\n{xml('now')}\n{xml('weather', ('city', '42'), ('days', '3'))}",
            "Let me see.\n\n", [("now", {}), ("weather", {"city": "42", "days": 3})],
        ),
        (xml("weather", ("city", "a\n\nb\n")), "", [("weather", {"city": "a\n\nb\n"})]),
        (
            xml("weather", ("city", "x</parameter>y"), ("hot", "True")), "",
            [("weather", {"city": "x</parameter>y", "hot": True})],
        ),
        (xml("unknown"), xml("unknown"), []),
        ("<tool_call>\n<function=now>", "<tool_call>\n<function=now>", []),
        (xml("now").replace("</function>", "x"), xml("now").replace("</function>", "x"), []),
        (
            xml("weather", ("city", "a")).replace("</parameter>", ""),
            xml("weather", ("city", "a")).replace("</parameter>", ""), [],
        ),
    ],
)  # fmt: skip
def test_calls_in_tags(text, shown, expected, step):
    """However the text is cut."""
    assert fed(text, step) == (shown, expected)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("city", "3", "3"), ("city", "null", "null"), ("city", '"a"', '"a"'), ("city", "", ""),
        ("days", "3", 3), ("days", "three", "three"), ("days", "NaN", "NaN"),
        ("hot", "false", False), ("hot", "False", False), ("hot", "1", "1"),
        ("least", "2.5", 2.5), ("least", "2", 2), ("least", "null", None), ("least", "None", None),
        ("tags", '["a", "é"]', ["a", "é"]), ("tags", "[" * 10000, "[" * 10000),
        ("place", '{"x": 1}', {"x": 1}),
        ("unit", "C", "C"), ("unit", "null", None), ("unit", "3", "3"),
        ("note", "3", "3"), ("note", "[3]", [3]), ("other", "{}", {}), ("other", "x", "x"),
    ],
)  # fmt: skip
def test_values_are_of_the_types_of_the_schema(name, text, value):
    """A text where they are of none."""
    assert fed(xml("weather", (name, text)), 1000) == ("", [("weather", {name: value})])


@pytest.mark.parametrize(
    "schema",
    [
        None, {}, {"properties": 3}, {"properties": {"a": 3}}, {"properties": {"a": {"type": 3}}},
        {"properties": {"a": {"$ref": "#/properties/a"}}}, {"properties": {"a": {"$ref": "#/x/y"}}},
        {"properties": {"a": {"anyOf": 3}}}, {"properties": {"a": {"enum": "abc"}}},
    ],
)  # fmt: skip
def test_schemas_that_say_nothing(schema):
    """Of which nobody has to make sense: the value is a text."""
    tool = Tool(type="function", function={"name": "f", "parameters": schema})
    _, (call,) = ToolCalls(QWEN_XML, [tool]).feed(xml("f", ("a", "1")), True)
    assert json.loads(call.function.arguments) == {"a": "1"}


def test_a_long_text_of_tags_is_read_at_once():
    """Not in time that grows by leaps: what is no call at its end is looked at once."""
    text = xml("weather", *[("city", "</parameter> <parameter")] * 2000)
    assert fed(text, 10**6)[1] == [("weather", {"city": "</parameter> <parameter"})]
    broken = text.replace("</function>", "")
    assert fed(broken, 10**6) == (broken, [])


@pytest.fixture(scope="module")
def coder(tmp_path_factory):
    """A server of the tiny model with a template that shows calls in tags."""
    folder = talker(tmp_path_factory.mktemp("coder"))
    shown = "<tool_call><function=NAME><parameter=NAME>...</parameter></function></tool_call>"
    changed = TEMPLATE.replace('<tool_call>{"name": ..., "arguments": ...}</tool_call>', shown)
    (folder / "chat_template.jinja").write_text(changed)
    with running(make_serving(folder)) as server:
        yield server


def ask(server, choice, **settings):
    body = {"messages": HELLO, "tools": SERVED, "tool_choice": choice}
    body |= {"temperature": 1.5, **settings}
    return body, server.ask(CHAT, **body)["choices"][0]


@pytest.mark.parametrize("seed", range(4))
def test_a_call_that_is_required(coder, seed):
    """The grammar leaves no choice but the function's parameters, by its schema."""
    named = {"type": "function", "function": {"name": "small"}}
    body, answer = ask(coder, named, seed=seed)
    assert answer["finish_reason"] == "tool_calls"
    assert answer["message"]["content"] is None
    (call,) = answer["message"]["tool_calls"]
    assert call["function"]["name"] == "small"
    given = json.loads(call["function"]["arguments"])
    assert {"unit", "at"} <= set(given) <= set(SMALL["properties"])
    assert given["unit"] in ("C", "F")
    assert given.get("days", 1) in range(1, 10)
    assert given.get("hot", True) in (True, False)
    assert set(given["at"]) <= {True, False}
    streamed = [each["choices"][0] for each in coder.stream(CHAT, **body)]
    (delta,) = [each["delta"] for each in streamed if "tool_calls" in each["delta"]]
    assert delta["tool_calls"][0]["function"] == call["function"]
    assert streamed[-1]["finish_reason"] == "tool_calls"


def test_any_of_several(coder):
    """One without parameters, too; a text may be of anything."""
    found = {}
    for seed in range(12):
        _, answer = ask(coder, "required", seed=seed)
        if answer["finish_reason"] == "tool_calls":
            (call,) = answer["message"]["tool_calls"]
            found[call["function"]["name"]] = json.loads(call["function"]["arguments"])
    assert found["now"] == {}
    assert isinstance(found["say"].get("text", ""), str)


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (xml("say", ("text", 'a "b"\n</x> é')), True), (xml("say", ("text", "")), True),
        (xml("say"), True), (xml("say", ("text", "a"), ("text", "b")), False),
        (xml("say", ("other", "a")), False), (xml("unknown"), False), ("hello", False),
        (xml("small", ("unit", "C"), ("at", "[true, false]")), True),
        (xml("small", ("unit", "C"), ("days", "9"), ("hot", "true"), ("at", "[]")), True),
        (xml("small", ("at", "[]"), ("unit", "C")), False), (xml("small", ("unit", "C")), False),
        (xml("small", ("unit", '"C"'), ("at", "[]")), False),
        (xml("small", ("unit", "C"), ("days", "10"), ("at", "[]")), False),
    ],
)  # fmt: skip
def test_what_the_grammar_lets_through(coder, text, fits):
    """Is a call of a function, and with what it lets through the same call is read."""
    tools = [Tool(**each) for each in SERVED]
    matcher = required(QWEN_XML, tools, "required", coder.serving.constraints)
    tokens = coder.serving.prompts.tokenizer.encode(text, add_special_tokens=False).ids
    taken = matcher.try_consume_tokens(tokens)
    assert (taken == len(tokens) and matcher.is_accepting()) == fits
    if fits:
        assert len(ToolCalls(QWEN_XML, tools).feed(text, True)[1]) == 1


def test_schemas_that_cannot_be_required(coder):
    """A 400 that says why."""
    for properties, words in (
        ({"a>b": {}}, "expected a name without >"),
        ({"a": {"type": "integer", "minimum": 3, "maximum": 2}}, "tools: "),
    ):
        function = {"name": "f", "parameters": {"properties": properties, "required": ["a"]}}
        tools = [{"type": "function", "function": function}]
        response = coder.post(CHAT, messages=HELLO, tools=tools, tool_choice="required")
        assert response.status_code == 400
        assert words in response.json()["error"]["message"]
        assert response.json()["error"]["param"] == "tools"
