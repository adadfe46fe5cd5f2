"""Other tiers than this process's: a tier is chosen once, when ternops is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence


def output_on(tier: str, arguments: Sequence[str], what: str) -> str:
    """What ``python ARGUMENTS`` prints with TERNOPS_ISA=tier, in a process of its own.

    Raises ValueError, saying `what` failed and the last line of its errors, unless it succeeds.
    """
    done = subprocess.run(
        [sys.executable, *arguments], env={**os.environ, "TERNOPS_ISA": tier},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ValueError(f"{what} on {tier}: {reason.removeprefix('ternops: error: ')}")
    return done.stdout
