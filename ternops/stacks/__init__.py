"""Stacks of residual blocks: sign times rank k, as much of a matrix as there is memory for."""
