"""Kernel code that turns packed bytes into codes, or into sums that are looked up.

Records of encodings name it and do not import it: it needs Numba and the tier, which packing, the
cost model and ``--help`` do without.
"""
