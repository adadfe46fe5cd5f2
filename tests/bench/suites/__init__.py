"""Tests of bench/suites."""
