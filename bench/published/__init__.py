"""Figures that others have published, copied as printed."""
