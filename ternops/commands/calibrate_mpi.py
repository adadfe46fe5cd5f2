"""``python -m ternops calibrate --mpi``: the link between the ranks that mpirun has started."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add(parser: Any) -> None:
    """Add the option to those of ``calibrate``."""
    parser.add_argument(
        "--mpi", action="store_true",
        help="under mpirun: measure the link between ranks, for predict --ranks, and add it to the "
        "profile that calibrate wrote before",
    )  # fmt: skip


def calibrate(path: Path, tell: Callable[[str], None]) -> None:
    """Measure the link between all ranks, which call this together; the first one adds it to the
    profile in a file and tells. Ends them all with one line where that cannot be."""
    mpi = _mpi()
    if mpi.COMM_WORLD.size < 2:
        raise ValueError("--mpi: one rank alone, expected mpirun -n 2, or more")
    leads = mpi.COMM_WORLD.rank == 0
    try:
        profile = _profile(path) if leads else {}
        found = _measured(mpi, profile, tell if leads else lambda what: None)
        if leads:
            from ternops.cost.profile import save

            save(found, path)
            tell(f"wrote {path}")
    except (ValueError, OSError) as error:  # the others wait for this rank
        print(f"ternops: error: rank {mpi.COMM_WORLD.rank}: {error}", file=sys.stderr, flush=True)
        mpi.COMM_WORLD.Abort(2)


def _mpi() -> Any:
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError(f"--mpi: {error}: pip install 'ternops[mpi]'") from None
    return MPI


def _profile(path: Path) -> dict[str, Any]:
    """The tables of a file that can be written back."""
    from ternops.cost.profile import parse
    from ternops.cost.tables import read_toml

    if not path.is_file():
        raise ValueError(f"--output {str(path)!r}: expected a profile that calibrate wrote before")
    table = read_toml(path)
    parse(table, str(path))
    return table


def _measured(mpi: Any, profile: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """The profile with the link; what it says of gathered vectors beside what was measured."""
    from ternops.cost.link import Link
    from ternops.cost.measured_link import ELEMENTS, measure_link, table_of

    found = measure_link(mpi, lambda what: tell(f"measuring {what} ..."))
    link = Link("", found.latency, found.bandwidth)
    tell(
        f"{found.ranks} ranks: latency {1e6 * found.latency:.1f} us, bandwidth "
        f"{found.bandwidth / 1e9:.3g} GB/s, barrier {1e6 * found.barrier:.1f} us"
    )
    for elements, seconds in zip(ELEMENTS, found.gathers, strict=True):
        expected = link.allgather_s(4 * elements, found.ranks)
        tell(
            f"gathering {4 * elements} bytes: {1e6 * seconds:.1f} us "
            f"({1e6 * expected:.1f} by latency and bandwidth)"
        )
    return {**profile, "link": table_of(found)}
