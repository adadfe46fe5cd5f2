"""Edit every file of ternops in turn by one byte: each edit leads to another cache folder.

python -P -m tests.programs.edit_sources

where PYTHONPATH leads to a copy of the package that may be edited. Files without kernels must not
change the folder. Prints the package's file, the number of edits and the number of folders.
"""

from __future__ import annotations

import math
from pathlib import Path

import ternops
from ternops.simd import folder
from ternops.simd.folder import cache_folder
from tests.helpers import internals


def main() -> None:
    """Edit, ask, and restore each file."""
    vars(folder)["TIME"] = math.inf  # the edits are this process's own
    before, seen = cache_folder(), []
    for path in sorted(Path(ternops.__file__).parent.rglob("*.py")):
        kept = path.read_bytes()
        path.write_bytes(kept + b"#")
        internals.look_again()
        plain = any(each in path.parents for each in folder.WITHOUT_KERNELS)
        assert plain == (cache_folder() == before), path
        seen.append(cache_folder())
        path.write_bytes(kept)
    internals.look_again()
    assert cache_folder() == before
    print(ternops.__file__, len(seen), len({before, *seen}))


if __name__ == "__main__":
    main()
