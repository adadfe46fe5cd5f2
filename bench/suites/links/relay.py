"""A network in user space: Ethernet frames from TAP devices, delivered after a delay, at a rate.

For kernels without netem. Each device is one host's full-duplex link to a switch: what it sends
leaves at the rate, one frame after another, and arrives after the delay; what the last byte of its
hardware address says is the host that it is for.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import threading
import time
from collections import deque
from contextlib import suppress

# <linux/if_tun.h>
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_FRAME = 1 << 16  # bytes
_AT_ONCE = 16  # frames that are read from one device before others have their turn
_QUEUE = 1 << 26  # bytes on their way from one host, more are dropped
_LAST = 5  # byte of the destination's address


def open_tap(name: str) -> int:
    """The descriptor of a new TAP device of that name; OSError where that cannot be."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(
            device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI)
        )
    except OSError:
        os.close(device)
        raise
    return device


def address(host: int) -> str:
    """The hardware address of a host."""
    return f"02:00:00:00:00:{host + 1:02x}"


class Relay(threading.Thread):
    """Passes frames on until it is stopped. devices: of hosts, by their numbers. delay: in seconds,
    which may change."""

    def __init__(self, devices: list[int], bytes_per_s: float) -> None:
        super().__init__(name="relay", daemon=True)
        self.delay = 0.0
        self._devices, self._rate = devices, bytes_per_s
        # Of each sender, in the order in which they arrive: when, and what.
        self._queues: list[deque[tuple[float, bytes]]] = [deque() for _ in devices]
        self._free = [0.0] * len(devices)
        self._on_the_way = [0] * len(devices)
        self._ended, self._end = os.pipe()

    def stop(self) -> None:
        """And close all devices."""
        os.write(self._end, b".")
        self.join()
        for each in (*self._devices, self._end, self._ended):
            os.close(each)

    def run(self) -> None:
        """Until `stop`."""
        with suppress(OSError, AttributeError):  # with others' permission: it wakes up in time
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        watched = [*self._devices, self._ended]
        while True:
            due = min((each[0][0] for each in self._queues if each), default=None)
            wait = None if due is None else max(0.0, due - time.monotonic())
            ready = select.select(watched, [], [], wait)[0]
            if self._ended in ready:
                return
            for sender, device in enumerate(self._devices):
                if device in ready:
                    self._read(sender, device)
            self._deliver()

    def _read(self, sender: int, device: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                frame = os.read(device, _FRAME)
            except BlockingIOError:
                return
            if self._on_the_way[sender] + len(frame) > _QUEUE:
                continue
            sent = max(time.monotonic(), self._free[sender]) + len(frame) / self._rate
            self._free[sender] = sent
            self._on_the_way[sender] += len(frame)
            self._queues[sender].append((sent + self.delay, frame))

    def _deliver(self) -> None:
        now = time.monotonic()
        for sender, queue in enumerate(self._queues):
            while queue and queue[0][0] <= now:
                frame = queue.popleft()[1]
                self._on_the_way[sender] -= len(frame)
                to = frame[_LAST] - 1
                is_one = not frame[0] & 1 and to < len(self._devices)
                for host in [to] if is_one else range(len(self._devices)):
                    if host != sender:
                        with suppress(OSError):  # its host is gone, or takes no more: it is lost
                            os.write(self._devices[host], frame)
