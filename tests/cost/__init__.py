"""Tests of ternops.cost."""
