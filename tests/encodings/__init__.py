"""Tests of ternops.encodings."""
