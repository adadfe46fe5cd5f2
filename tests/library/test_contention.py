"""How many threads are used while other processes are busy, on a simulated machine and clock."""

from __future__ import annotations

import itertools

import pytest

from ternops import contention
from ternops.contention import Contention
from tests.helpers import internals

MS = 1_000_000


class Machine:
    """Runs jobs on some CPUs of which `busy` are taken by others; its clock is its own.

    While the CPUs suffice for all a job takes 1 / threads of its time. Beyond that threads wait
    for one that has none: the more time, the more of them there are.
    """

    def __init__(self, monkeypatch, cpus):
        self.cpus, self.busy, self.now = cpus, 0, 0
        self.contention = Contention()
        monkeypatch.setattr(contention.time, "perf_counter_ns", lambda: self.now)

    def speed(self, threads):
        free = max(1, self.cpus - self.busy)
        return threads if threads <= free else free * (free / threads) ** 2

    def late_share(self, threads):
        return max(0.0, 1 - self.speed(threads) / threads)

    def run(self, work, asked=None, milliseconds=1):
        """A job of so much time for one thread, as a team runs it; gives the threads used."""
        asked = asked or self.cpus
        c = self.contention
        timed = c.active
        used = c.choose(asked) if timed else asked
        spent = int(milliseconds * MS / self.speed(used))
        late = int(spent * self.late_share(used) * max(1, used - 1))
        self.now += spent
        if timed:
            c.note(work, asked, used, spent, late)
        elif late:
            c.begin(asked)
        return used

    def run_for(self, milliseconds, *works):
        """Jobs for so much time; gives how much of it each number of threads was used."""
        end, spent = self.now + milliseconds * MS, {}
        for work in itertools.cycle(works or ("token",)):
            before = self.now
            if before >= end:
                return spent
            used = self.run(work)
            spent[used] = spent.get(used, 0) + self.now - before


def most_used(spent):
    return max(spent, key=spent.get)


@pytest.mark.parametrize("cpus", [2, 4, 64])
def test_alone_nothing_is_tried(monkeypatch, cpus):
    """All threads, always, and no job is timed."""
    machine = Machine(monkeypatch, cpus)
    assert set(machine.run_for(1000)) == {cpus}
    assert not machine.contention.active


@pytest.mark.parametrize(("cpus", "busy"), [(2, 1), (2, 2), (4, 1), (4, 3), (64, 1), (64, 40)])
def test_with_busy_processes_the_fastest_number_is_found(monkeypatch, cpus, busy):
    """Within a second, and kept for nine tenths of the time; all of them a second after."""
    machine = Machine(monkeypatch, cpus)
    machine.run_for(100)
    machine.busy = busy
    machine.run_for(1000)
    spent = machine.run_for(3000)
    best = max(range(1, cpus + 1), key=machine.speed)
    done = sum(time * machine.speed(used) for used, time in spent.items())
    assert done >= 0.9 * machine.speed(best) * sum(spent.values()), spent
    assert machine.speed(most_used(spent)) >= 0.85 * machine.speed(best)
    machine.busy = 0
    machine.run_for(3000)
    assert set(machine.run_for(500)) == {cpus}
    assert not machine.contention.active


def test_threads_that_always_wait_cost_little(monkeypatch):
    """Shares that do not come out even make threads wait: fewer are tried now and then, in vain."""
    machine = Machine(monkeypatch, 4)
    monkeypatch.setattr(machine, "late_share", lambda threads: 0.3 * (threads > 1))
    machine.run_for(500)
    spent = machine.run_for(5000)
    done = sum(time * machine.speed(used) for used, time in spent.items())
    assert done >= 0.97 * 4 * sum(spent.values()), spent


def test_a_job_late_once_changes_nothing(monkeypatch):
    """An interrupt, a page from the disk: the next jobs are watched, and that is all."""
    machine = Machine(monkeypatch, 2)
    machine.contention.begin(2)
    assert machine.contention.active
    assert set(machine.run_for(100)) == {2}
    assert not machine.contention.active


def test_jobs_are_compared_with_their_like(monkeypatch):
    """Long jobs in one window and short ones in the other say nothing of the threads."""
    few, many = internals.window(1), internals.window(2)
    for _ in range(10):
        many.add("long", 10 * MS, 0)
        few.add("short", 2 * MS, 0)
    many.add("short", 1 * MS, 0)
    assert few.speed_over(many) == 0.5
    assert many.speed_over(few) == 2.0


def test_works_that_never_come_again(monkeypatch):
    """Then what was lost in waiting decides."""
    machine = Machine(monkeypatch, 2)
    machine.busy = 1
    machine.run_for(2000, *range(100_000))
    assert most_used(machine.run_for(2000, *range(100_000))) == 1


def test_small_jobs_that_take_fewer_threads_are_left_alone(monkeypatch):
    """What asks for one thread gets one and counts for nothing."""
    machine = Machine(monkeypatch, 4)
    machine.busy = 1
    machine.run("token")
    window = internals.window_of(machine.contention)
    machine.contention.note("small", 1, 1, 10 * MS, 0)
    assert internals.window_of(machine.contention) is window
    assert window.spent == 0
