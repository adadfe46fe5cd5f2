"""Run ranks with a network of a given latency and rate between them, on one machine; needs root.

    python -m bench.namespaces --link 1ms,1Gbit/s
    python -m bench.namespaces --link 1ms,1Gbit/s --ranks 2 -- python -m ternops generate ...

Each rank has a network namespace of its own, and no other way to the others than a device that
delays what it sends: a veth with netem where the kernel has that, and otherwise a TAP whose frames
a thread of this program passes on (bench/suites/links/relay.py). mpiexec, MPICH's, starts one rank
in each, without shared memory, over TCP. A link's latency is that of MPI's
messages: what they take without any delay is measured first, and the delay is the rest. Without a
command the link is measured again, and it fails unless latency and bandwidth are within 15% of what
was asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

from bench.core import command
from bench.core.mpi import mpiexec
from bench.suites.links import relay
from ternops.cost.known_links import load_link
from ternops.cost.link import Link

#: What was asked for and what is measured may differ by so much.
MAX_ERROR = 0.15
MAX_RANKS = 64
_DEVICE, _MTU = "link0", 9000  # large packets: a relay in Python has to see each of them
_NETEM_LIMIT = 100000  # packets on their way
#: MPICH: as if every rank were on another machine, and by TCP; over UCX, or, where it was built
#: without that, over libfabric. The tcp provider of that, by itself, waits for an answer to each
#: message that is sent while another comes, and takes twice the latency; a long gathered vector
#: takes it for every 32 KB, unless it is told not to.
_ENVIRONMENT = {
    "MPIR_CVAR_NOLOCAL": "1", "MPIR_CVAR_ALLGATHERV_PIPELINE_MSG_SIZE": "0",
    "MPIR_CVAR_CH4_NETMOD": "ucx", "UCX_TLS": "tcp", "UCX_NET_DEVICES": _DEVICE,
    "FI_PROVIDER": "tcp;ofi_rxm", "FI_TCP_IFACE": _DEVICE,
}  # fmt: skip
#: What measures it, in every rank.
MEASURE = (sys.executable, "-m", "bench.suites.links.pingpong")


class NamespaceError(OSError):
    """A network that cannot be set up, in one line."""


class Network(NamedTuple):
    """names: of namespaces. kind: what delays, "netem" or "relay". delay: sets how many seconds."""

    names: list[str]
    kind: str
    delay: Callable[[float], None]


@contextmanager
def network(ranks: int, bytes_per_s: float) -> Iterator[Network]:
    """So many namespaces with a link between any two; all is removed behind it. Raises
    NamespaceError."""
    if os.geteuid():
        raise NamespaceError("network namespaces: expected to be root")
    names = [f"ternops-{os.getpid()}-{rank}" for rank in range(ranks)]
    with ExitStack() as undo:
        for name in names:
            _ip("netns", "add", name)
            undo.callback(_ip, "netns", "del", name)
        kind = "netem" if _has_netem(names[0]) else "relay"
        make = _veths if kind == "netem" else _taps
        delay = make(names, bytes_per_s, undo)
        for rank, name in enumerate(names):
            _ip("-n", name, "address", "add", f"10.77.0.{rank + 1}/24", "dev", _DEVICE)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", _DEVICE, "up")
        yield Network(names, kind, delay)


def _has_netem(name: str) -> bool:
    words = ("qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms")
    done = subprocess.run(("tc", "-n", name, *words), capture_output=True)
    if done.returncode == 0:
        _run("tc", "-n", name, "qdisc", "del", "dev", "lo", "root")
    return done.returncode == 0


def _veths(names: list[str], bytes_per_s: float, undo: ExitStack) -> Callable[[float], None]:
    """To a bridge in a namespace of its own; what a rank sends is delayed."""

    def delay(seconds: float, verb: str = "change") -> None:
        for name in names:
            _run(
                "tc", "-n", name, "qdisc", verb, "dev", _DEVICE, "root", "netem",
                "delay", f"{1e6 * seconds:.0f}us", "rate", f"{8 * bytes_per_s:.0f}bit",
                "limit", str(_NETEM_LIMIT),
            )  # fmt: skip

    switch = f"ternops-{os.getpid()}-switch"
    _ip("netns", "add", switch)
    undo.callback(_ip, "netns", "del", switch)
    _ip("-n", switch, "link", "add", "switch", "type", "bridge")
    _ip("-n", switch, "link", "set", "switch", "up")
    for rank, name in enumerate(names):
        port = f"port{rank}"
        _ip("-n", switch, "link", "add", port, "mtu", str(_MTU), "type", "veth",
            "peer", "name", _DEVICE, "netns", name, "mtu", str(_MTU))  # fmt: skip
        _ip("-n", switch, "link", "set", port, "master", "switch", "up")
    delay(0.0, "add")
    return delay


def _taps(names: list[str], bytes_per_s: float, undo: ExitStack) -> Callable[[float], None]:
    devices = []
    for rank, name in enumerate(names):
        tap = f"ternops{rank}"
        try:
            devices.append(relay.open_tap(tap))
        except OSError as error:
            raise NamespaceError(f"/dev/net/tun: {error.strerror}, and no netem") from None
        _ip("link", "set", tap, "netns", name)
        _ip("-n", name, "link", "set", tap, "name", _DEVICE, "address", relay.address(rank),
            "mtu", str(_MTU))  # fmt: skip
    passing = relay.Relay(devices, bytes_per_s)
    passing.start()
    undo.callback(passing.stop)
    return partial(setattr, passing, "delay")


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except FileNotFoundError:
        raise NamespaceError(f"{words[0]}: not found, expected iproute2") from None
    if done.returncode:
        raise NamespaceError(f"{' '.join(words)}: {done.stderr.strip().splitlines()[-1]}")


def command_line(names: list[str], words: list[str]) -> list[str]:
    """One rank of a command in each of some namespaces."""
    line = [mpiexec(), "-launcher", "fork"]
    for number, name in enumerate(names):
        line += [":"] * (number > 0) + ["-n", "1", "ip", "netns", "exec", name, *words]
    return line


def run(names: list[str], words: list[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """A command in every namespace; its exit code is mpiexec's."""
    environment = {**os.environ, **_ENVIRONMENT}
    return subprocess.run(command_line(names, words), env=environment, **options)


def settle(found: Network, link: Link) -> None:
    """Set the delay with which a message of MPI takes the link's latency. NamespaceError where it
    takes longer without any."""
    least = measured(found)["latency"]
    if least > (1 + MAX_ERROR) * link.latency_s:
        raise NamespaceError(
            f"latency: {1e6 * least:.0f} us without any delay, expected at most the "
            f"{1e6 * link.latency_s:.0f} us of {link.name}"
        )
    found.delay(max(0.0, link.latency_s - least))


def measured(found: Network) -> dict[str, Any]:
    """The link between the first rank and others, as bench.suites.links.pingpong prints it."""
    done = run(found.names, list(MEASURE), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise NamespaceError(f"measuring the link: mpiexec ended with {done.returncode}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def _prove(network: Network, link: Link) -> int:
    """Measure the link, print it beside what was asked for; 1 if it is too far from that."""
    found, worst = measured(network), 0.0
    for what, asked, seen, unit in (
        ("latency", 1e6 * link.latency_s, 1e6 * found["latency"], "us"),
        ("bandwidth", link.bytes_per_s / 1e6, found["bandwidth"] / 1e6, "MB/s"),
    ):
        error = seen / asked - 1
        worst = max(worst, abs(error))
        print(f"{what}: asked {asked:.1f} {unit}, measured {seen:.1f}, {error:+.1%}")
    return int(worst > MAX_ERROR)


def main(argv: list[str] | None = None) -> int:
    """Set up, run, remove; the command's exit code, 2 for what cannot be."""
    parser = command.make_parser("bench.namespaces", __doc__)
    words = "a name as of predict --link, or LATENCY,RATE (default: 1ms,1Gbit/s)"
    parser.add_argument("--link", default="1ms,1Gbit/s", metavar="LINK", help=words)
    parser.add_argument("--ranks", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND",
                        help="and its arguments; default: the link is measured")  # fmt: skip
    arguments = parser.parse_args(argv)
    words = arguments.words[arguments.words[:1] == ["--"] :]
    if not 2 <= arguments.ranks <= MAX_RANKS:
        parser.error(f"--ranks {arguments.ranks}: expected 2 to {MAX_RANKS}")
    if threading.current_thread() is threading.main_thread():  # what is set up is removed
        signal.signal(signal.SIGTERM, lambda *given: sys.exit(143))
    try:
        link = load_link(arguments.link)
        with network(arguments.ranks, link.bytes_per_s) as found:
            print(f"{arguments.ranks} namespaces, {found.kind}", file=sys.stderr)
            settle(found, link)
            return run(found.names, words).returncode if words else _prove(found, link)
    except (ValueError, OSError) as error:
        print(f"bench.namespaces: {error}", file=sys.stderr)
        return 2
