"""Is the cost model right about this machine?"""

import sys

from bench.suites.cost.command import main

if __name__ == "__main__":
    sys.exit(main())
