"""What others wrote is one short line in an error."""

from __future__ import annotations

import numpy as np
import pytest

from ternops.shown import in_line, shown


@pytest.mark.parametrize("value", ["a", 3, 1.5, None, [1, "b"], {"a": (1, 2)}, "x" * 100])
def test_what_is_short_is_as_repr_has_it(value):
    assert shown(value) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**6,
        [0] * 10**6,
        ["y" * 99] * 99,
        10**5000,
        -(10**5000),
        {"k" * 999: [[[[[[1]]]]]]},
        np.arange(500),
    ],
    ids=type,
)
def test_what_is_long_is_short(value):
    text = shown(value)
    assert len(text) < 500
    assert text.isprintable()


def test_the_text_of_others_has_no_line_breaks():
    assert in_line("a\nb\r\n\tc  d\x00\x1b\u2028e") == "a b c d\\x00\\x1b e"
    assert in_line(ValueError("é 'x'")) == "é 'x'"
    assert len(in_line("x" * 10**6)) < 500
