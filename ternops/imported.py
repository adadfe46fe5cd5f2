"""When this package was imported: its modules are what its files were then, or became later."""

from __future__ import annotations

import time

#: In seconds, as `os.stat` has them.
TIME = time.time()
