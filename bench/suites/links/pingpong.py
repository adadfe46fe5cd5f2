"""Measure the link between the ranks that run this, and print it, the first of them."""

from __future__ import annotations

import json

from ternops.cost.measured_link import measure_link


def main() -> None:
    """As JSON, in seconds and bytes/s."""
    from mpi4py import MPI

    found = measure_link(MPI)
    if MPI.COMM_WORLD.rank == 0:
        print(json.dumps(found._asdict()))


if __name__ == "__main__":
    main()
