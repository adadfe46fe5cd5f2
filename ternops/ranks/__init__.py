"""Several processes that decode together, each with a part of a model, over MPI.

`split` says who has what, `world` finds the processes, `group` is how the first of them leads the
others, which `follow`. A program that was not started by
`mpirun`, or with one process, never imports mpi4py.
"""
