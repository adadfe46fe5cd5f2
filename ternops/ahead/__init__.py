"""Compiling kernels before they are needed: several at a time, for this CPU or for others.

`jobs` lists them, `worker` compiles in a process of its own, `pool` runs workers beside one
another, `carried` makes the files that a wheel carries.
"""
