"""`python -m ternops`, where no file can grow longer than a limit.

python -m tests.programs.with_full_disk BYTES COMMAND ...
"""

from __future__ import annotations

import resource
import signal
import sys

from ternops.__main__ import main

if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.exit(main(sys.argv[2:]))
