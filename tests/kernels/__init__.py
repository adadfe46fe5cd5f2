"""Tests of ternops.kernels."""
