"""Text like code, for measuring drafts from the prompt: a class whose methods repeat a pattern."""

from __future__ import annotations

from ternops.decoder.checkpoint import open_checkpoint

_FIELDS = ("name", "path", "size", "mode", "owner", "group")
_HEAD = """class Entry:
    def __init__(self, stat):
        self._stat = stat
"""
_METHOD = '''
    def get_{field}(self):
        """Return the {field} of this entry."""
        if self._stat is None:
            raise ValueError("no {field}")
        return self._stat.{field}
'''


def prompt() -> list[int]:
    """The tokens of the class, for the tiny checkpoint's vocabulary."""
    text = _HEAD + "".join(_METHOD.format(field=field) for field in _FIELDS)
    return list(open_checkpoint().tokenizer().encode(text).ids)
