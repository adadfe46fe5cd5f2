"""One persistent team of threads that run a compiled job together, with a barrier inside it.

Workers wait in compiled code without the interpreter's lock: first spinning, so that the next
job starts in well under a microsecond, then parked on a semaphore, so that an idle process costs
nothing. A job is a function address and a record; no library's thread pool is involved, so two
Python threads can call in at once (they take turns) and a forked child simply makes a new team.

Whoever waits inside a job spins for a moment and then sleeps (a futex, on Linux), so that a
thread that has lost its CPU to another process finds one; it leaves its CPU for another one if the
thread that it has waited for runs there, too. How long threads waited beyond that moment tells
that the machine is busy: `ternops.contention` then tries fewer of them.

Memory order, which x86 hides and ARM does not: what one thread tells another goes through an
atomic operation, and all of these are sequentially consistent, so that each store releases what
its thread wrote before and each load acquires it. The caller writes a job's address and record,
then the workers' states; a worker reads its state, then those. A worker writes its results, then
adds to the number of those that are done, which the caller reads before it goes on. In the
barrier whoever arrives adds to a number, and so has all that earlier ones wrote; the last one
resets that number before it changes the phase, which is all that the others wait for, so that
nobody can arrive at the next barrier and be counted in this one. Who waits long is counted
before the system looks at the number that it waits for, and who changes that number looks at the
count after it: one of the two sees what the other did.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import warnings
from collections.abc import Hashable
from typing import Any

import numpy as np

from ternops.contention import MIN_LATE, Contention
from ternops.memory import HoldsAddresses
from ternops.simd import (
    Entry,
    TeamJob,
    atomic_add,
    atomic_load,
    atomic_store,
    atomic_swap_if,
    call_team_job,
    cpu_number,
    futex_wait,
    futex_wake,
    inlined,
    kernel,
    leave_cpu,
    load,
    nanoseconds,
    pause,
    pointer,
    store,
    yield_thread,
)

#: The largest `threads` that is accepted.
MAX_THREADS = 256

# The control block: int64 fields, each group of them in a cache line of its own (byte offsets).
_JOB, _RECORD, _THREADS = 0, 8, 16
_DONE = 64
_ARRIVED = 128
_PHASE = 192
# Threads that wait for one that is late; nanoseconds for which some did; and the CPU of the one
# that ends their waiting.
_WAITING, _LATE, _CPU = 256, 264, 272
_STATES = 320  # one cache line a worker
_LINE = 64

# The states of a worker; 0: not started.
_ABSENT, _PARKED, _SPINNING, _WOKEN, _CLAIMED, _RUN, _STOP = range(7)

_SPINS_BEFORE_YIELD = 1 << 10
_SPINS_BEFORE_PARK = 1 << 15
# Whoever is late by no more than this is waited for, while others may run: waking a sleeper takes
# some 5 to 50 us, and the system moves a late thread to the CPU that a sleeper has left, where both
# are once it wakes.
_NANOSECONDS_BEFORE_SLEEP = 1_000_000


@kernel
def _wait_long(control, word, value):
    """Wait for a thread that is late: let others run, then sleep; note how long that took.

    Two threads on one CPU are late for each other at every barrier, and the system may leave them
    there for many milliseconds beside a CPU that is idle: one that finds itself on the CPU of the
    one that it has waited for goes away.
    """
    start = nanoseconds()
    atomic_store(control + _CPU, -1)
    atomic_add(control + _WAITING, 1)
    while atomic_load(control + word) == value:
        if nanoseconds() - start < _NANOSECONDS_BEFORE_SLEEP:
            yield_thread()
            for _ in range(_SPINS_BEFORE_YIELD):
                if atomic_load(control + word) != value:
                    break
                pause()
        else:
            futex_wait(control + word, value)
    atomic_add(control + _WAITING, -1)
    atomic_add(control + _LATE, nanoseconds() - start)
    cpu = cpu_number()
    if cpu >= 0 and cpu == atomic_load(control + _CPU):
        leave_cpu(cpu, load(np.int64, control + _THREADS))


@inlined
def _wait_while(control, word, value):
    """Wait until the number at a place of the control block is no longer `value`."""
    for _ in range(_SPINS_BEFORE_YIELD):
        if atomic_load(control + word) != value:
            return
        pause()
    _wait_long(control, word, value)


@kernel
def _tell_cpu(control):
    atomic_store(control + _CPU, cpu_number())


@kernel
def _wake_sleepers(control, word):
    futex_wake(control + word)


@inlined
def _will_change(control):
    """Before a number changes: tell who has waited long for it where this thread runs."""
    if atomic_load(control + _WAITING) != 0:
        _tell_cpu(control)


@inlined
def _changed(control, word):
    """Wake who sleeps until the number at this place changes."""
    if atomic_load(control + _WAITING) != 0:
        _wake_sleepers(control, word)


@inlined
def barrier(team, threads):
    """Wait until all `threads` threads of the running job have come here (about 0.1 us)."""
    if threads > 1:
        control = pointer(team)
        phase = atomic_load(control + _PHASE)
        if atomic_add(control + _ARRIVED, 1) == threads - 1:
            atomic_store(control + _ARRIVED, 0)
            _will_change(control)
            atomic_store(control + _PHASE, phase + 1)
            _changed(control, _PHASE)
        else:
            _wait_while(control, _PHASE, phase)


@inlined
def share(count, step, thread, threads):
    """This thread's part [first, last) of `count` items, its bounds multiples of `step`."""
    steps = (count + step - 1) // step
    first = steps * thread // threads * step
    last = steps * (thread + 1) // threads * step
    return min(first, count), min(last, count)


@inlined
def share_between(start, end, step, thread, threads):
    """The same of the items [start, end)."""
    first, last = share(end - start, step, thread, threads)
    return start + first, start + last


@inlined
def _wait_once(spins):
    pause()
    if spins >= _SPINS_BEFORE_YIELD:  # more threads than cores: let the late one run
        yield_thread()
        return 0
    return spins + 1


@Entry
def _work(team, thread):
    """Run jobs until none has come for a while; returns whether the team goes on."""
    control = pointer(team)
    state = control + _STATES + thread * _LINE
    spins = short = 0
    while True:
        now = atomic_load(state)
        if now == _RUN:
            job, record = load(np.int64, control + _JOB), load(np.int64, control + _RECORD)
            call_team_job(job, record, team, thread, load(np.int64, control + _THREADS))
            atomic_store(state, _SPINNING)
            _will_change(control)
            atomic_add(control + _DONE, 1)
            _changed(control, _DONE)
            spins = short = 0
        elif now == _STOP:
            return False
        else:
            short = _wait_once(short)
            spins += 1
            # One that was just woken has a job coming, but not for ever: its caller may have died.
            patience = _SPINS_BEFORE_PARK if now == _SPINNING else _SPINS_BEFORE_PARK << 6
            if spins > patience and now != _CLAIMED and atomic_swap_if(state, now, _PARKED):
                return True


@Entry
def _launch(team, job, record, threads):
    """Run a job with this thread as number 0; -1, having done nothing, if a worker is parked or
    not there.

    Gives the nanoseconds for which threads waited in vain, added up over them.
    All is decided in here, so that no exception in Python can leave a job half started.
    """
    if threads == 1:
        call_team_job(job, record, team, 0, 1)
        return 0
    control = pointer(team)
    for thread in range(1, threads):
        state = control + _STATES + thread * _LINE
        spinning = atomic_swap_if(state, _SPINNING, _CLAIMED)
        if not spinning and not atomic_swap_if(state, _WOKEN, _CLAIMED):
            for claimed in range(1, thread):
                atomic_store(control + _STATES + claimed * _LINE, _SPINNING)
            return -1
    store(control + _JOB, np.int64(job))
    store(control + _RECORD, np.int64(record))
    store(control + _THREADS, np.int64(threads))
    store(control + _LATE, np.int64(0))
    atomic_store(control + _DONE, 0)
    for thread in range(1, threads):
        atomic_store(control + _STATES + thread * _LINE, _RUN)
    call_team_job(job, record, team, 0, threads)
    done = atomic_load(control + _DONE)
    while done != threads - 1:
        _wait_while(control, _DONE, done)
        done = atomic_load(control + _DONE)
    return atomic_load(control + _LATE)


#: What Python calls, and is compiled.
ENTRIES = (_launch, _work)


class Team(HoldsAddresses):
    """Worker threads, started when first needed, and the calling thread as number 0."""

    def __init__(self) -> None:
        size = _STATES + MAX_THREADS * _LINE
        memory = np.zeros(size + _LINE, np.uint8)
        start = -memory.ctypes.data % _LINE
        self._memory = memory
        self._states = memory[start + _STATES : start + size].view(np.int64)[:: _LINE // 8]
        self._lock = threading.RLock()
        self._wake: list[threading.Semaphore] = []
        self._threads: list[threading.Thread] = []
        self._launching = False
        self._contention = Contention()
        #: The most threads that a job is run on, whatever was asked for.
        self.limit = MAX_THREADS
        #: The address of the control block, which a job passes to `barrier`.
        self.address = int(memory.ctypes.data) + start

    def run(self, job: TeamJob, record: np.ndarray[Any, Any], threads: int) -> None:
        """Run ``job(record, team, thread, threads)`` on `threads` threads and wait for them."""
        self.run_at(job.address, record.ctypes.data, threads)

    def run_at(self, job: int, record: int, threads: int, work: Hashable = None) -> None:
        """`run`, for the addresses of a job and a record; never on more threads than `limit`.

        work: where the number of threads was nobody's choice, what tells this job from others
        that take another time; fewer threads then run it while the machine is busy.
        """
        if threads > self.limit:  # faster than min()
            threads = self.limit
        if threads == 1:
            _launch.call(self.address, job, record, 1)
            return
        with self._lock:
            if self._launching:
                # A signal handler's job, in the middle of this thread's own launch.
                _launch.call(self.address, job, record, 1)
                return
            self._launching = True
            try:
                if work is not None and self._contention.active:
                    self._run_timed(job, record, threads, work)
                elif self._run_together(job, record, threads) > MIN_LATE and work is not None:
                    self._contention.begin(threads)
            finally:
                self._launching = False

    def _run_timed(self, job: int, record: int, threads: int, work: Hashable) -> None:
        used = self._contention.choose(threads)
        start = time.perf_counter_ns()
        late = self._run_together(job, record, used)
        self._contention.note(work, threads, used, time.perf_counter_ns() - start, late)

    def _run_together(self, job: int, record: int, threads: int) -> int:
        """On `threads` threads, or as many as the system grants; what `_launch` gives."""
        while True:
            while len(self._threads) < threads - 1:
                try:
                    self._start_worker()
                except RuntimeError as error:  # no more threads to be had
                    threads = self.limit = len(self._threads) + 1
                    warnings.warn(f"{error}: going on with {threads}", RuntimeWarning, stacklevel=2)
            # A signal handler may fork anywhere here: in the child the workers are gone again.
            if (late := _launch.call(self.address, job, record, threads)) >= 0:
                return int(late)
            for thread, wake in enumerate(self._wake[: threads - 1], 1):
                # A parked worker leaves its state alone until it is woken.
                if self._states[thread] == _PARKED:
                    self._wake_up(thread, wake)

    def _wake_up(self, thread: int, wake: threading.Semaphore) -> None:
        try:
            self._states[thread] = _WOKEN
            wake.release()
        except BaseException:  # of a signal handler: it may sleep on, and must be woken again
            self._states[thread] = _PARKED
            raise

    def stop(self) -> None:
        """End the workers; the next `run` starts new ones."""
        with self._lock:
            for thread, worker in enumerate(self._threads, 1):
                self._states[thread] = _STOP
                self._wake[thread - 1].release()
                worker.join()
                self._states[thread] = _ABSENT
            self._threads.clear()
            self._wake.clear()

    def _start_worker(self) -> None:
        wake = threading.Semaphore(0)
        number = len(self._threads) + 1
        worker = threading.Thread(
            target=self._serve, args=(number, wake), name=f"ternops-{number}", daemon=True
        )
        try:
            worker.start()
        finally:
            # One that runs must be known, even if an exception in a signal handler interrupts this.
            # One that is not known yet waits for ever.
            if worker.ident is not None:
                self._states[number] = _PARKED
                self._wake.append(wake)
                self._threads.append(worker)

    def _serve(self, number: int, wake: threading.Semaphore) -> None:
        wake.acquire()
        while _work.call(self.address, number):
            wake.acquire()


TEAM = Team()


def _forget_after_fork() -> None:
    # The parent's workers do not exist here.
    limit = TEAM.limit
    TEAM.__init__()  # type: ignore[misc]
    TEAM.limit = limit


if hasattr(os, "register_at_fork"):
    # No fork in the middle of a job: the child would inherit half of it.
    os.register_at_fork(
        before=lambda: TEAM._lock.acquire(),
        after_in_parent=lambda: TEAM._lock.release(),
        after_in_child=_forget_after_fork,
    )


def _end() -> None:
    # Workers must not touch the control block while the interpreter takes its memory down. For what
    # is multiplied later, in a `__del__`, it can start none, and would wait for them for ever.
    TEAM.limit = 1
    TEAM.stop()


atexit.register(_end)
