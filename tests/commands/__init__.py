"""Tests of `python -m ternops`."""
