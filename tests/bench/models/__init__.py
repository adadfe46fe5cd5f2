"""Tests of bench/models."""
