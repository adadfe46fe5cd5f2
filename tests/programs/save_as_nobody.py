"""Save a matrix as a user who may not; prints the PermissionError.

python -m tests.programs.save_as_nobody FILE
"""

from __future__ import annotations

import os
import sys

import ternops
from tests.helpers import cases

if __name__ == "__main__":
    matrix = ternops.pack(cases.trits(3, 9))
    if os.geteuid() == 0:
        os.setuid(65534)
    try:
        matrix.save(sys.argv[1])
    except PermissionError as error:
        print(error)
