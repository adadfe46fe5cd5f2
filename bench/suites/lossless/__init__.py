"""The lossless table: every encoding on every tier gives the bits that NumPy gives."""
