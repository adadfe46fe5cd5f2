"""Models of random weights, for this library and for others."""
