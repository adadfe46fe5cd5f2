"""Tests of bench/published."""
