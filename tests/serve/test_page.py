"""The page, as people use it: type, read what streams, stop, reload; on a phone as well."""

from __future__ import annotations

import time

import pytest

from ternops.decoder import Batch
from tests.helpers.browser import CHROMIUM, browser
from tests.helpers.serving import make_serving, running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="neither chromium nor google-chrome is installed"),
]
IDLE, BUSY = "document.querySelector('#stop').hidden", "!document.querySelector('#stop').hidden"
SAID = "[...document.querySelectorAll('.said')].map((each) => [each.className, each.textContent])"
WIDTH = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture
def page(tmp_path):
    with browser(tmp_path) as found:
        yield found


def test_a_chat(page, talking):
    """An answer is the one of the API; what was said is there after a reload; nobody else is
    asked, and nothing reaches out of a phone's window."""
    page.size(390, 780, phone=True)
    page.open(talking.url)
    page.wait("document.querySelector('#model').textContent === 'tiny'")
    page.evaluate("document.querySelector('#temperature').value = '0'")
    page.evaluate("document.querySelector('#most').value = '20'")
    page.type("hello\n")
    page.wait(f"document.querySelectorAll('.assistant').length === 1 && {IDLE}")
    asked = [{"role": "user", "content": "hello"}]
    body = {"messages": asked, "temperature": 0, "max_tokens": 20}
    message = talking.ask("/v1/chat/completions", **body)["choices"][0]["message"]
    expected = [["said user", "hello"], ["said assistant", message["content"]]]
    assert page.evaluate(SAID) == expected
    assert "20 tokens" in page.evaluate("document.querySelector('#figures').textContent")
    page.type("and again\n")
    page.wait(f"document.querySelectorAll('.assistant').length === 2 && {IDLE}")
    said = page.evaluate(SAID)
    page.reload()
    page.wait("document.querySelectorAll('.said').length === 4")
    assert page.evaluate(SAID) == said
    assert page.evaluate(WIDTH) <= 0
    loaded = page.evaluate("performance.getEntriesByType('resource').map((each) => each.name)")
    assert loaded
    assert all(each.startswith(talking.url) for each in loaded)
    page.evaluate("document.querySelector('#clear').click()")
    assert page.evaluate(SAID)[0][0] == "said hint"


def _begin_slowly(page, talking, monkeypatch):
    """Ask, and wait until a part of an answer is there that goes on for long."""
    step = Batch.step
    monkeypatch.setattr(Batch, "step", lambda batch: time.sleep(0.02) or step(batch))
    page.open(talking.url)
    page.wait("document.querySelector('#model').textContent === 'tiny'")
    page.type("hello\n")
    page.wait("(document.querySelector('.assistant')?.textContent.length ?? 0) > 5")


def test_stop(page, talking, monkeypatch):
    """What had come by then stays, and the server has nothing more to do."""
    _begin_slowly(page, talking, monkeypatch)
    assert page.evaluate(BUSY)
    page.evaluate("document.querySelector('#stop').click()")
    page.wait(IDLE)
    talking.wait_until_idle()
    assert page.evaluate(SAID)[1][0] == "said assistant"
    assert not page.evaluate("document.querySelector('.error')")


def test_clear_amid_an_answer(page, talking, monkeypatch):
    """What is cleared does not come back, neither at once nor at a reload."""
    _begin_slowly(page, talking, monkeypatch)
    page.evaluate("document.querySelector('#clear').click()")
    page.wait(IDLE)
    assert [each[0] for each in page.evaluate(SAID)] == ["said hint"]
    page.reload()
    page.wait("document.querySelector('#model').textContent === 'tiny'")
    page.wait("document.querySelectorAll('.said').length > 0")
    assert [each[0] for each in page.evaluate(SAID)] == ["said hint"]


def test_what_goes_wrong_is_said(page):
    """A key that is missing, which can be given; markup in an answer is no markup."""
    with running(make_serving(), key="secret") as server:
        page.open(server.url)
        page.wait("document.querySelector('.error')?.textContent.includes('API key')")
        page.evaluate("document.querySelector('#key').value = 'secret'")
        page.evaluate("document.querySelector('#key').dispatchEvent(new Event('change'))")
        page.wait("document.querySelector('#model').textContent === 'tiny'")
        page.evaluate("document.querySelector('#most').value = '5'")
        page.type("<b>def</b>\n")
        page.wait(f"document.querySelectorAll('.assistant').length === 1 && {IDLE}")
        assert page.evaluate("document.querySelectorAll('main b').length") == 0
        assert page.evaluate(SAID)[0] == ["said user", "<b>def</b>"]
