"""Tests of bench/core."""
