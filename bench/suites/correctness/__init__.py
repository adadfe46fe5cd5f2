"""What each engine computes of the same files: the perplexity of a text, and greedy tokens."""
