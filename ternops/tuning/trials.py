"""What is timed for a task: its tiles and the read probes, over the same bytes."""

from __future__ import annotations

from collections.abc import Callable

from ternops.cost.probes import Probe
from ternops.cost.rounds import Memory, Products
from ternops.cpu_caches import cpu_cache_bytes
from ternops.kernels.plan import make_plan
from ternops.kernels.tiles import Tile
from ternops.tuning.plan import Shape, Task

_PART = 1 << 27  # bytes that a trial reads of the memory's
_PART_OF_SEVERAL = 1 << 24  # where several tokens are multiplied, which takes longer


class Setting:
    """Where tiles of a task are compared: a shape on a number of threads."""

    def __init__(self, task: Task, shape: Shape, threads: int, memory: Memory) -> None:
        self.task, self.shape, self.threads = task, shape, threads
        if task.subject.is_cached:
            size = part = cpu_cache_bytes().get(2, 1 << 20) // 2 * threads
        else:
            size, part = memory.reader.size, _PART if shape.tokens == 1 else _PART_OF_SEVERAL
        self._products = Products(
            task.encoding, *shape, task.subject.kind, threads, memory, size, part
        )
        # A token's multiply-accumulates are the weights.
        self.weight_bytes = self._products.bytes_per_mac * shape.tokens

    def __str__(self) -> str:
        where = "cached" if self.task.subject.is_cached else "memory"
        tokens = f", {self.shape.tokens} tokens" if self.shape.tokens > 1 else ""
        rows, columns = self.shape[:2]
        return f"{rows} x {columns}{tokens}, {self.threads} thread(s), {where}"

    def trial(self, tile: Tile) -> Callable[[], float]:
        """A function that gives the seconds of a byte."""
        plan = make_plan(self.task.encoding, self.shape.columns, self.task.subject.kind, tile)

        def run() -> float:
            self._products.chain.use(plan)
            return self._products.multiply()

        return run

    def probe(self, probe: Probe) -> Callable[[], float]:
        """The same of reading alone."""
        return lambda: self._products.read(probe)
