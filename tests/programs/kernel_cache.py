"""Run kernels, and tell what of them was compiled and what was read from the cache.

python -P -m tests.programs.kernel_cache [OPTION ...] STEP ...

STEP: "read" is the job that is compiled the soonest, "again" another like it; ENCODING/KIND is a
product by the kernels of that shape class, "every" one of each kernel; clean:FOLDER removes a
folder, go:FOLDER makes it the current one, edit:FILE changes a source. Prints two lines: the jobs
compiled, and the folder of the cache.
"""

from __future__ import annotations

import argparse
import os
import pwd
import resource
import shutil
import tempfile
from collections.abc import Sequence


def prepare(arguments: argparse.Namespace) -> None:
    """What must be so before ternops is imported."""
    if arguments.no_home or arguments.no_folder:

        def missing(uid: int) -> pwd.struct_passwd:
            raise KeyError(f"getpwuid(): uid not found: {uid}")

        pwd.getpwuid = missing
    if arguments.no_folder:
        tempfile._candidate_tempdir_list = list  # type: ignore[attr-defined]
    if arguments.folder:
        os.chdir(arguments.folder)
    if arguments.max_file_bytes:
        limit = arguments.max_file_bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def run(steps: Sequence[str]) -> None:
    """Do the steps and print the two lines."""
    import ternops
    from ternops.kernels import reference
    from tests.helpers import cases, internals

    compiled = internals.count_compilations()
    x = cases.activations(3, 1021)

    def read(streams: int) -> None:
        from ternops.cost.probes import PROBES, Reader

        probe = next(each for each in PROBES if each.streams == streams)
        assert internals.sum_read(Reader(4160), probe, threads=2) == 4160 % 256

    def product(encoding: str, kind: str) -> None:
        trits = cases.trits(37, 1021, encoding=encoding)
        some = x[:1] if kind in cases.OF_ONE_TOKEN else x
        with internals.forced_kernel(kind) as kind_of:
            found = ternops.matmul(some, ternops.pack(trits, encoding=encoding).T, threads=2)
        assert kind_of.called
        assert cases.same_bits(found, reference.matmul_int32(some, trits)), (encoding, kind)

    with internals.eager_threads():
        for step in steps:
            if step.startswith("clean:"):
                shutil.rmtree(step.removeprefix("clean:"))
            elif step.startswith("edit:"):
                with open(step.removeprefix("edit:"), "a") as source:
                    source.write("# edited\n")
            elif step.startswith("go:"):
                os.chdir(step.removeprefix("go:"))
            elif step in ("read", "again"):
                read(1 if step == "read" else 2)
            elif step == "every":
                for encoding, kind in cases.KINDS:
                    product(encoding, kind)
            else:
                product(*step.split("/"))
    print(*sorted(compiled))
    print(ternops.info()["cache"])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("steps", nargs="+")
    parser.add_argument("--no-home", action="store_true", help="the user has no home")
    parser.add_argument("--no-folder", action="store_true", help="nor is there a temporary folder")
    parser.add_argument("--folder", help="go there first")
    parser.add_argument("--max-file-bytes", type=int, help="no file grows longer")
    arguments = parser.parse_args()
    prepare(arguments)
    run(arguments.steps)


if __name__ == "__main__":
    main()
