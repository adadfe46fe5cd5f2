"""Tests of ternops.decoder."""
