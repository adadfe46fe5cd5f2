"""Tests of the scripts in examples/: what they compute, on settings that take seconds."""
