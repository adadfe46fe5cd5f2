"""Texts over HTTP are those of the library: alone, in company, whole, streamed."""

from __future__ import annotations

import base64
import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest

from ternops.serve import embeddings
from ternops.serve.requests import Message
from tests.helpers.serving import make_serving, running, talker
from tests.helpers.texts import text_of

CHAT, COMPLETE, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
PROMPTS = ("def ", "import os\n\nclass ", "    return [", "# The parser")
#: It takes about a second to become tokens.
LONG_TEXT = "def word(else):\n    pass\n" * 15_000
HELLO = [{"role": "user", "content": "hello"}]
DRAWN = {
    "temperature": 1.5, "seed": 7, "top_p": 0.9, "top_k": 50, "min_p": 0.01,
    "repetition_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": 0.5,
}  # fmt: skip


def expected(server, prompt, count, **settings):
    """What the library says behind a text."""
    tokenizer = server.serving.prompts.tokenizer
    tokens = tokenizer.encode(prompt).ids
    generated = list(server.serving.model.generate(tokens, count, **settings))
    return text_of(tokenizer, generated, tokens)


def texts(events):
    """The text of each choice, from the events of a stream of completions."""
    found = {}
    for each in events:
        for choice in each["choices"]:
            found[choice["index"]] = found.get(choice["index"], "") + choice["text"]
    return [found[number] for number in sorted(found)]


@pytest.mark.parametrize("settings", [{"temperature": 0}, DRAWN], ids=["greedy", "drawn"])
def test_a_text_does_not_depend_on_its_neighbours(server, settings):
    """All at once, whole and as streams; a bias is taken over, too."""
    bias = {"47": 5.0}

    def ask(number):
        body = {"prompt": PROMPTS[number % 4], "max_tokens": 30 + number, **settings}
        body["logit_bias"] = bias
        if number % 2:
            return texts(server.stream(COMPLETE, **body))[0]
        return server.ask(COMPLETE, **body)["choices"][0]["text"]

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(ask, range(12)))
    for number, text in enumerate(found):
        biased = {"logit_bias": {47: 5.0}, **settings}
        assert text == expected(server, PROMPTS[number % 4], 30 + number, **biased)


def test_what_a_completion_says_of_itself(server):
    answer = server.ask(COMPLETE, prompt="def ", max_tokens=5, temperature=0, model="tiny")
    assert answer["object"] == "text_completion"
    assert answer["model"] == "tiny"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}


def test_several_prompts_and_choices(server):
    """In the order of the prompts; each choice has the next seed."""
    settings = {"temperature": 1.0, "seed": 3}
    body = {"prompt": list(PROMPTS[:2]), "n": 3, "max_tokens": 12, **settings}
    answer = server.ask(COMPLETE, **body)
    found = [each["text"] for each in answer["choices"]]
    assert [each["index"] for each in answer["choices"]] == list(range(6))
    assert found == [
        expected(server, prompt, 12, temperature=1.0, seed=3 + choice)
        for prompt in PROMPTS[:2] for choice in range(3)
    ]  # fmt: skip
    assert len(set(found)) == 6
    assert texts(server.stream(COMPLETE, **body)) == found
    tokens = [server.serving.prompts.of_text(each) for each in PROMPTS[:2]]
    assert server.ask(COMPLETE, **{**body, "prompt": tokens})["choices"] == answer["choices"]
    # Each prompt is read once.
    assert answer["usage"]["prompt_tokens"] == sum(map(len, tokens))


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_stop_strings(server, streams):
    """Nothing of one is shown, nor what is behind it, even where tokens cut it in pieces."""
    whole = expected(server, "def ", 60)
    for stop in (whole[17:22], whole[5], whole[30:42]):
        body = {"prompt": "def ", "max_tokens": 60, "temperature": 0, "stop": ["\x00", stop]}
        if streams:
            found = server.stream(COMPLETE, **body)
            text, reason = texts(found)[0], found[-1]["choices"][0]["finish_reason"]
        else:
            choice = server.ask(COMPLETE, **body)["choices"][0]
            text, reason = choice["text"], choice["finish_reason"]
        assert text == whole[: whole.index(stop)]
        assert reason == "stop"
    server.wait_until_idle()


def test_logprobs_are_those_of_the_logits(server):
    """Of the prompt that is echoed and of what follows."""
    tokens = server.serving.prompts.of_text("import os\n\nclass Parser:\n")
    body = {"prompt": tokens, "max_tokens": 6, "temperature": 0, "logprobs": 3, "echo": True}
    choice = server.ask(COMPLETE, **body)["choices"][0]
    model = server.serving.model
    generated = list(model.generate(tokens, 6))
    logits = model.logits([*tokens, *generated])[:-1].astype(np.float64)
    known = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    follows = [*tokens[1:], *generated]
    found = choice["logprobs"]
    assert found["token_logprobs"][0] is None is found["top_logprobs"][0]
    wanted = known[np.arange(len(follows)), follows]
    assert found["token_logprobs"][1:] == pytest.approx(wanted.tolist(), abs=1e-5)
    for row, token, top in zip(known, follows, found["top_logprobs"][1:], strict=True):
        # The likeliest, and the one that came where it is none of these.
        likeliest = np.argsort(-row)[:3].tolist()
        those = row[list(dict.fromkeys([*likeliest, token]))]
        assert list(top.values()) == pytest.approx(those.tolist(), abs=1e-5)
    assert max(map(len, found["top_logprobs"][1:])) == 4
    assert "".join(found["tokens"][1:]) == choice["text"]
    offsets = found["text_offset"]
    assert [choice["text"][at] for at in offsets[1:]] == [each[0] for each in found["tokens"][1:]]


def test_tokens_that_are_parts_of_characters(server):
    """Each begins where its character does, what follows at its own place."""
    text = "aé€\U0001f41c b"
    body = {"prompt": text, "max_tokens": 2, "temperature": 0, "logprobs": 0, "echo": True}
    choice = server.ask(COMPLETE, **body)["choices"][0]
    found, said = choice["logprobs"], choice["text"]
    places = zip(found["tokens"], found["text_offset"], strict=True)
    assert [at for token, at in places if token == "\ufffd"] == [1, 1, 2, 2, 2, 3, 3, 3, 3]
    for token, at in zip(found["tokens"][1:], found["text_offset"][1:], strict=True):
        assert token == "\ufffd" or said[at : at + len(token)] == token
    streamed = [each["choices"][0]["logprobs"] for each in server.stream(COMPLETE, **body)]
    assert [at for each in streamed for at in each["text_offset"]] == found["text_offset"]


def test_a_prompt_can_be_scored_alone(server):
    """max_tokens 0 with echo, as evaluation harnesses ask."""
    body = {"prompt": "def main", "max_tokens": 0, "echo": True, "logprobs": 1}
    answer = server.ask(COMPLETE, **body)
    choice = answer["choices"][0]
    assert choice["text"] == "def main"
    assert len(choice["logprobs"]["tokens"]) == answer["usage"]["prompt_tokens"]
    assert answer["usage"]["completion_tokens"] == 0
    assert texts(server.stream(COMPLETE, **body)) == ["def main"]


def test_the_events_of_a_chat(talking):
    body = {"messages": HELLO, "max_tokens": 9, "temperature": 0}
    whole = talking.ask(CHAT, **body, n=2)
    events = talking.stream(CHAT, **body, n=2, stream_options={"include_usage": True})
    deltas = [each["choices"][0] for each in events[:-1]]
    for number in range(2):
        of = [each for each in deltas if each["index"] == number]
        assert of[0]["delta"] == {"role": "assistant", "content": ""}
        assert of[-1]["delta"] == {}
        assert of[-1]["finish_reason"] == whole["choices"][number]["finish_reason"]
        text = "".join(each["delta"].get("content", "") for each in of)
        assert text == whole["choices"][number]["message"]["content"] != ""
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == whole["usage"]
    assert {each["id"] for each in events} == {events[0]["id"]}


def test_logprobs_of_a_chat(talking):
    """The bytes of the tokens are those of the text."""
    body = {"messages": HELLO, "max_tokens": 9, "temperature": 0, "logprobs": True}
    choice = talking.ask(CHAT, **body, top_logprobs=2)["choices"][0]
    content = choice["logprobs"]["content"]
    assert (
        b"".join(bytes(each["bytes"]) for each in content).decode() == choice["message"]["content"]
    )
    for each in content:
        assert each["top_logprobs"][0]["token"] == each["token"]
        assert each["top_logprobs"][0]["logprob"] == each["logprob"] <= 0
        assert len(each["top_logprobs"]) == 2
    streamed = talking.stream(CHAT, **body, top_logprobs=2)
    found = [each["choices"][0]["logprobs"] for each in streamed]
    assert [token for each in found if each for token in each["content"]] == content


def test_a_message_in_parts_and_an_answer_repeated(talking):
    """As OpenAI's client sends back what it was given."""
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    settings = {"max_tokens": 5, "temperature": 0}
    plain = talking.ask(CHAT, messages=HELLO, **settings)
    found = talking.ask(CHAT, messages=[{"role": "user", "content": parts}], **settings)
    assert found["choices"] == plain["choices"]
    again = [*HELLO, plain["choices"][0]["message"], *HELLO]
    assert talking.ask(CHAT, messages=again, **settings)["usage"]["prompt_tokens"] > 20


def test_names_of_control_tokens_are_text_in_a_chat(talking):
    """Nobody ends a turn that is not theirs."""
    text = "a <|end_of_text|> b"
    asked = [{"role": "user", "content": text}]
    prompts = talking.serving.prompts
    tokens = prompts.of_messages([Message(**each) for each in asked], None)
    assert 1 not in tokens
    assert text in prompts.tokenizer.decode(tokens)
    answer = talking.ask(CHAT, messages=asked, max_tokens=1)
    assert answer["usage"]["prompt_tokens"] == len(tokens)


def test_settings_that_the_files_recommend(tmp_path):
    """Hold where a request says nothing."""
    folder = talker(tmp_path)
    said = {"do_sample": True, "temperature": 0.5, "top_k": 3, "eos_token_id": 1}
    (folder / "generation_config.json").write_text(json.dumps(said))
    with running(make_serving(folder)) as server:
        body = {"prompt": "def ", "seed": 5, "max_tokens": 20}
        answer = server.ask(COMPLETE, **body)["choices"][0]["text"]
        assert answer == expected(server, "def ", 20, temperature=0.5, top_k=3, seed=5)
        answer = server.ask(COMPLETE, **body, top_k=0, temperature=1.5)["choices"][0]["text"]
        assert answer == expected(server, "def ", 20, temperature=1.5, seed=5)


def test_json_is_json(talking):
    """Drawn at a temperature at which nothing else is."""
    schema = {
        "type": "object", "additionalProperties": False, "required": ["name", "size"],
        "properties": {"name": {"enum": ["ant", "bee"]}, "size": {"type": "integer", "maximum": 99,
                                                                  "minimum": 10}},
    }  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "insect", "schema": schema}}
    body = {"messages": HELLO, "temperature": 2.0, "max_tokens": 300, "response_format": form}
    for seed in range(5):
        choice = talking.ask(CHAT, **body, seed=seed, n=2)["choices"][1]
        found = json.loads(choice["message"]["content"])
        assert choice["finish_reason"] == "stop"
        assert found["name"] in ("ant", "bee")
        assert 10 <= found["size"] <= 99
    body["response_format"] = {"type": "json_object"}
    assert talking.ask(CHAT, **body, seed=1)["choices"][0]["message"]["content"].startswith("{")


def test_openai_client(talking):
    """Whole, streamed, vectors; an error is the client's own."""
    with openai.OpenAI(base_url=f"{talking.url}/v1", api_key="none", max_retries=0) as client:
        assert [each.id for each in client.models.list()] == ["tiny"]
        assert client.models.retrieve("tiny").id == "tiny"
        settings = {"model": "tiny", "messages": HELLO, "temperature": 0, "max_tokens": 12}
        whole = client.chat.completions.create(**settings)
        parts = client.chat.completions.create(**settings, stream=True)
        text = "".join(each.choices[0].delta.content or "" for each in parts)
        assert text == whole.choices[0].message.content
        vector = client.embeddings.create(model="tiny", input="def ").data[0].embedding
        assert vector == pytest.approx(talking.serving.model.embed(["def "])[0].tolist())
        with pytest.raises(openai.NotFoundError, match="not served here"):
            client.completions.create(model="other", prompt="x")
        with pytest.raises(openai.BadRequestError, match="temperature"):
            client.completions.create(model="tiny", prompt="x", temperature=-1)


def test_embeddings(server):
    """Those of the library, bit for bit, however they are asked for."""
    inputs = ["def ", "x" * 300, "import os", "word " * 90, "def "]
    expected = server.serving.model.embed(inputs)
    answer = server.ask(EMBED, input=inputs)
    found = np.array([each["embedding"] for each in answer["data"]], np.float32)
    np.testing.assert_array_equal(found, expected)
    assert [each["index"] for each in answer["data"]] == list(range(5))
    encoded = server.ask(EMBED, input=inputs, encoding_format="base64")["data"]
    decoded = [np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in encoded]
    np.testing.assert_array_equal(decoded, expected)
    tokens = [server.serving.prompts.of_text(each) for each in inputs]
    assert server.ask(EMBED, input=tokens)["data"] == answer["data"]
    assert answer["usage"]["prompt_tokens"] == sum(map(len, tokens))
    assert math.isclose(float(np.square(found[0]).sum()), 1.0, abs_tol=1e-5)


def test_vectors_are_written_beside_others(server, monkeypatch):
    """Not by the thread that answers all requests."""
    threads = []
    original = embeddings.EmbeddingItem

    def noted(**fields):
        threads.append(threading.current_thread().name)
        return original(**fields)

    monkeypatch.setattr(embeddings, "EmbeddingItem", noted)
    server.ask(EMBED, input=["a", "b"])
    assert len(threads) == 2
    assert all(each.startswith("asyncio") for each in threads)  # of `to_thread`


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (COMPLETE, {"prompt": LONG_TEXT}),
        (CHAT, {"messages": [{"role": "user", "content": LONG_TEXT}]}),
        ("/tokenize", {"prompt": LONG_TEXT}),
    ],
    ids=[COMPLETE, CHAT, "/tokenize"],
)
def test_others_are_answered_while_a_long_text_becomes_tokens(talking, path, body):
    count = 0
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(talking.post, path, **body)
        with httpx.Client(base_url=talking.url) as other:
            while not asked.done():
                assert other.get("/health").status_code == 200
                count += 1
    assert asked.result().status_code == (200 if path == "/tokenize" else 400)
    assert count > 20


def test_between_texts_and_tokens(server):
    text = "def é():\n    return '\U0001f41c'\n"
    found = server.ask("/tokenize", prompt=text)
    assert found["tokens"] == server.serving.prompts.tokenizer.encode(text).ids
    assert found["count"] == len(found["tokens"])
    plain = server.ask("/tokenize", prompt=text, add_special_tokens=False)["tokens"]
    assert plain == found["tokens"][1:]
    assert server.ask("/detokenize", tokens=plain) == {"prompt": text}
