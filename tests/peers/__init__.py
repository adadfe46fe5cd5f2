"""Comparisons with transformers and llama.cpp (`make test-peers`)."""
