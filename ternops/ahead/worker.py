"""A process that compiles the jobs whose keys it reads, a line each, and says when one is done.

    python -m ternops.ahead.worker [--target TARGET FOLDER] [--encodings NAME ...] [--plain]

Without a target: for this process's own CPU and tier, to the user's folder. TARGET is JSON of
`ternops.isa.targets.Target`; FOLDER gets a file of `ternops.simd.objects` for each job.
The first line that it prints is the keys of all jobs there are, or of what models in some encodings
need, or plain ones; those of tuning's candidates, which are many more, it takes as well.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def main() -> None:
    """Until there are no more lines."""
    parser = argparse.ArgumentParser(prog="python -m ternops.ahead.worker", description=__doc__)
    parser.add_argument("--target", nargs=2)
    parser.add_argument("--encodings", nargs="+")
    parser.add_argument("--plain", action="store_true")
    arguments = parser.parse_args()
    folder = None
    if arguments.target:
        from ternops.simd import host

        target = json.loads(arguments.target[0])
        host.compile_for(target["triple"], target["cpu"], target["features"])
        folder = Path(arguments.target[1])

    from ternops.ahead.jobs import candidate, every, needed
    from ternops.simd import kept, objects

    jobs = needed(arguments.encodings, True, arguments.plain) if arguments.encodings else every()
    # What a job prints, or Numba, must not be taken for an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps(list(jobs)), file=answers, flush=True)
    for line in sys.stdin:
        key = line.strip()
        job = jobs.get(key) or candidate(key)
        if folder is None:
            _ = job.address
        else:
            code, symbol = job.compile()
            file = objects.as_bytes(kept.origin(), [(key, code, symbol)])
            (folder / f"{key}{kept.SUFFIX}").write_bytes(file)
        print(key, file=answers, flush=True)


if __name__ == "__main__":
    main()
