"""Tests of ternops.simd."""
