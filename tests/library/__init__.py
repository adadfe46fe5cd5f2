"""Tests of the top level of ternops: products, matrices, threads, files, settings."""
