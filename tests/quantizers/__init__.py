"""Tests of ternops.quantizers."""
