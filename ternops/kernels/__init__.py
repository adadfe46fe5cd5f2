"""The arithmetic: NumPy oracles in `reference`, and the kernels that equal them bit for bit."""
