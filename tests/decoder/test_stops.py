"""Strings at which a text ends, whatever pieces it comes in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ternops.decoder.stops import StopStrings


def shown(stops, pieces):
    """All that is let through, and whether the text has ended."""
    feed, text = StopStrings(stops), ""
    for piece in pieces:
        safe, stopped = feed.feed(piece)
        text += safe
        if stopped:
            return text, True
    return text + feed.end(), False


def oracle(stops, text):
    """The shortest beginning that holds one, without it."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


@given(
    st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3),
    st.lists(st.text("ab\n", max_size=5), max_size=8),
)
def test_pieces_change_nothing(stops, pieces):
    assert shown(stops, pieces) == oracle(stops, "".join(pieces))


def test_no_more_is_held_back_than_may_be_one():
    feed = StopStrings(["\n\nUser:"])
    assert feed.feed("Hello.\n") == ("Hello.", False)
    assert feed.feed("\nUs") == ("", False)
    assert feed.feed("ual") == ("\n\nUsual", False)
    assert feed.feed("\n\nUser: x") == ("", True)


def test_bad_strings_are_named():
    for stops, error in (("ab", TypeError), ([3], TypeError), ([""], ValueError)):
        with pytest.raises(error, match="stop: "):
            StopStrings(stops)
