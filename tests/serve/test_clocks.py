"""A server whose clocks jump answers as before."""

from __future__ import annotations

import itertools
import time
from unittest import mock

from tests.helpers import processes

#: Seconds since 1970: then, today's order, before it, and after 32 bits.
JUMPS = (0.0, 1.8e9, 1.2e9, 2.0**32)
#: Ahead by an hour and by ten years at once, as for a process that was paused, before a request and
#: amid one: this is answered, or refused by a line about time, and the next one as ever.
LEAPS = """
import threading, time
from unittest import mock
from tests.helpers.serving import make_serving, running
question = {"model": "tiny", "prompt": "Once", "max_tokens": 8, "temperature": 0}
real, ahead = time.monotonic, [0.0]
def leap(seconds):
    ahead[0] += seconds
with (
    mock.patch.object(time, "monotonic", side_effect=lambda: real() + ahead[0]),
    running(make_serving()) as server,
):
    expected = server.ask("/v1/completions", **question)["choices"]
    for seconds in (3600, 10 * 365 * 86400):
        leap(seconds)
        assert server.ask("/v1/completions", **question)["choices"] == expected
        timer = threading.Timer(0.01, leap, [3600])
        timer.start()
        response = server.post("/v1/completions", **{**question, "max_tokens": 100})
        timer.join()
        assert response.status_code in (200, 503), response.text
        server.wait_until_idle()
        assert server.ask("/v1/completions", **question)["choices"] == expected
print("as ever")
"""


def test_the_wall_clock_jumps_by_years(server):
    """Either way, between any two looks at it: dates differ, and nothing waits for them."""
    question = {"model": "tiny", "prompt": "Once", "max_tokens": 8, "temperature": 0}
    expected = server.ask("/v1/completions", **question)
    with mock.patch.object(time, "time", side_effect=itertools.cycle(JUMPS)):
        found = [server.ask("/v1/completions", **question) for _ in range(8)]
        streamed = server.stream("/v1/completions", **question)
        server.wait_until_idle()
    assert [each["choices"] for each in found] == [expected["choices"]] * 8
    assert {each["created"] for each in found} <= set(map(int, JUMPS))
    text = "".join(each["choices"][0]["text"] for each in streamed if each["choices"])
    assert text == expected["choices"][0]["text"]


def test_the_other_clocks_leap():
    """In a process of its own, whose other servers would go by the same clock."""
    assert processes.run_code(LEAPS) == "as ever\n"
