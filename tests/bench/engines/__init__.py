"""Tests of bench/engines."""
