"""Tests of bench/arm."""
