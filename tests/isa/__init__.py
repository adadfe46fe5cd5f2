"""Tests of ternops.isa."""
