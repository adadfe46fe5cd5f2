"""The benchmark suite: what the machine can do, and what ternops makes of it."""

import sys

# What `python -m bench.NAME` runs imports ternops, which may find a variable of the environment
# wrong: a line, as from `python -m ternops`. (Modules of bench.arm change such things first.)
if sys.argv[:1] == ["-m"] and "bench.arm" not in sys.orig_argv[-len(sys.argv)]:
    try:
        from bench.core import extras
        from ternops import matmul  # noqa: F401

        if line := extras.missing():
            raise ImportError(line)
    except (ImportError, ValueError) as error:
        print(f"{__name__}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
