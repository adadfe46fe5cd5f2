"""Networks between ranks on one machine: frames that a relay passes on, and what is started."""

from __future__ import annotations

import json
import os
import socket
import time

import pytest

from bench.core.links import LINKS_FILE, LINKS_FORMAT, load_links
from bench.suites.links import command, namespaces
from bench.suites.links.relay import Relay, address
from ternops.cost.known_links import load_link
from ternops.cost.link import Link
from ternops.cost.measured_link import ELEMENTS
from tests.helpers.profiles import PROFILE

FIGURES = {
    "ranks": 2, "latency": 1.05e-3, "bandwidth": 120e6, "barrier": 1e-3,
    "gathers": [1.1e-3] * len(ELEMENTS), "local": False,
}  # fmt: skip


def frame(to: int, sender: int, body: bytes) -> bytes:
    return bytes.fromhex((address(to) + address(sender)).replace(":", "")) + b"\x08\x00" + body


@pytest.fixture
def hosts():
    """Three of them with a relay between, of a kilobyte a second and no delay."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(3)]
    for ours, _ in pairs:
        ours.setblocking(False)
    relay = Relay([ours.detach() for ours, _ in pairs], 1e6)
    relay.start()
    yield relay, [theirs for _, theirs in pairs]
    relay.stop()
    for _, theirs in pairs:
        theirs.close()


def test_a_frame_reaches_whom_it_is_for(hosts):
    """One host, or all others; in the order in which they were sent."""
    _, (first, second, third) = hosts
    for sent in (frame(1, 0, b"a"), b"\xff" * 6 + b"all", frame(1, 0, b"c"), frame(9, 0, b"d")):
        first.send(sent)
    assert [second.recv(100)[14:] for _ in range(3)] == [b"a", b"", b"c"]
    assert third.recv(100) == b"\xff" * 6 + b"all"
    third.send(frame(0, 2, b"back"))
    # Its own frames do not come back to the first one.
    assert first.recv(100)[14:] == b"back"


def test_no_frame_arrives_too_soon(hosts):
    """Neither before the delay, nor before the bytes ahead of it have left."""
    relay, (first, second, _) = hosts
    relay.delay = 0.05
    start = time.monotonic()
    for _ in range(3):
        first.send(frame(1, 0, bytes(9986)))
    arrived = []
    for _ in range(3):
        assert len(second.recv(20000)) == 10000
        arrived.append(time.monotonic() - start)
    assert all(each >= 0.05 + 0.01 * at for at, each in enumerate(arrived, 1))


def test_one_rank_is_started_in_each_namespace(monkeypatch):
    """With MPICH's variables that leave no other way."""
    monkeypatch.setattr(namespaces, "mpiexec", lambda: "mpiexec")
    line = namespaces.command_line(["a", "b"], ["python", "x.py"])
    assert " ".join(line) == (
        "mpiexec -launcher fork -n 1 ip netns exec a python x.py : -n 1 ip netns exec b python x.py"
    )
    code = "import os; print([os.environ[name] for name in ('MPIR_CVAR_NOLOCAL', 'UCX_TLS')])"
    monkeypatch.setattr(namespaces, "command_line", lambda names, words: words)
    done = namespaces.run([], [namespaces.sys.executable, "-c", code], capture_output=True)
    assert done.stdout.decode().strip() == "['1', 'tcp']"


@pytest.mark.parametrize("least", [100e-6, 2e-3])
def test_the_delay_is_what_messages_do_not_take_themselves(monkeypatch, least):
    """Or there is none, where they take longer than was asked for."""
    delays = []
    monkeypatch.setattr(namespaces, "measured", lambda found: {**FIGURES, "latency": least})
    found = namespaces.Network(["a", "b"], "relay", delays.append)
    if least < 1e-3:
        namespaces.settle(found, Link("1ms", 1e-3, 1e8))
        assert delays == [pytest.approx(0.9e-3)]
    else:
        with pytest.raises(namespaces.NamespaceError, match="2000 us without any delay"):
            namespaces.settle(found, Link("1ms", 1e-3, 1e8))


@pytest.mark.parametrize(("latency", "code"), [(1.1e-3, 0), (1.2e-3, 1)])
def test_a_link_is_proven_within_15_percent(monkeypatch, capsys, latency, code):
    monkeypatch.setattr(namespaces, "measured", lambda found: {**FIGURES, "latency": latency})
    assert namespaces._prove(None, load_link("1ms,1Gbit/s")) == code
    assert f"measured {1e6 * latency:.1f}, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--link", "wire"], "link 'wire': expected 1GbE"), (["--ranks", "1"], "expected 2 to 64")],
)
def test_wrong_arguments_are_one_line(arguments, words, capsys):
    try:
        code = namespaces.main(arguments)
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert words in capsys.readouterr().err


def test_root_is_needed(monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert namespaces.main([]) == 2
    assert capsys.readouterr().err.endswith("network namespaces: expected to be root\n")


def test_what_is_measured_is_stored(monkeypatch, tmp_path):
    """Shared memory, and each network that could be made."""

    def network(ranks, bytes_per_s):
        raise namespaces.NamespaceError("no namespaces")

    monkeypatch.setattr(command, "calibrate", lambda threads, announce: PROFILE)
    monkeypatch.setattr(command, "mpiexec", lambda: "echo")
    monkeypatch.setattr(command, "MEASURE", ())
    monkeypatch.setattr(command.json, "loads", lambda text: dict(FIGURES, local=True))
    monkeypatch.setattr(command, "network", network)
    assert command.main(["--output", str(tmp_path)]) == 0
    stored = json.JSONDecoder().decode((tmp_path / LINKS_FILE).read_text("utf-8"))
    assert stored["format"] == LINKS_FORMAT
    assert stored["left_out"] == [f"{name}: no namespaces" for name in command.ASKED]
    monkeypatch.undo()
    _, machine, links = load_links(tmp_path)
    assert machine.name == PROFILE["name"]
    assert [each.name for each in links] == ["shared memory"]
