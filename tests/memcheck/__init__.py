"""Compiled kernels under valgrind's memcheck: no read or write beside an array, and no result that
depends on memory that nothing has written."""
