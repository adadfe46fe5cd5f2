"""Tests of ternops.decoder.formats."""
