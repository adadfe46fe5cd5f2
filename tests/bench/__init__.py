"""Tests of bench/, in folders as there."""
