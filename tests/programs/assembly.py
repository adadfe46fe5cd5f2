"""The machine code of product kernels, each below a line with its name.

python -m tests.programs.assembly [NAME ...]

Without names, those of all GEMVs of the tier.
"""

from __future__ import annotations

import sys

from ternops.kernels.plan import KERNELS
from tests.helpers import cases


def main(names: list[str]) -> None:
    """In the order in which they are named."""
    jobs = {job.name: job for _, *jobs in KERNELS.values() for job in jobs}
    for name in names or cases.GEMVS:
        print("@@@", name)
        print(jobs[name].assembly())


if __name__ == "__main__":
    main(sys.argv[1:])
