"""PyTorch's DataLoader in virtual time, which writes its log as a real one does.

With loader processes: an epoch begins by dispatching workers × prefetch batches, batch k to worker k mod workers. Each
time a batch is taken, the batch workers × prefetch later is dispatched, as long as the epoch has more. A worker loads
its batches one after another. Batches arrive in order.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from autotune.execution.simulated.cores import Cores
from autotune.measure import LoaderLog

Fetch = Callable[[int], tuple[float, float]]
"""Seconds that loading the micro-batch of that number, counted over all epochs, waits and then computes."""


class Killed(Exception):
    """The deadline has passed."""


class VirtualLoader:
    def __init__(
        self,
        cores: Cores,
        log: LoaderLog,
        fetch: Fetch,
        *,
        epoch_batches: int,
        restart_s: Callable[[bool], float] = lambda _first: 0.0,
        deadline_s: float = math.inf,
    ) -> None:
        """`restart_s`: seconds that `iter(loader)` takes, for the first epoch or for others. Waiting for a batch ends
        with `Killed` at `deadline_s`."""
        self.taken = 0
        """Batches, of all epochs."""
        self._cores = cores
        self._log = log
        self._fetch = fetch
        self._epoch_batches = epoch_batches
        self._restart_s = restart_s
        self._deadline_s = deadline_s
        self._epoch_start = self._dispatched = 0
        self._ready: set[int] = set()
        self._queues: list[deque[int]] = [deque() for _ in range(log.workers)]
        self._cpu_s = [0.0] * log.workers

    @property
    def now_s(self) -> float:
        return self._cores.now_s

    def take(self) -> int:
        """Wait for the next batch; at the end of an epoch begin another. Returns the batch's number, counted over all
        epochs."""
        asked_s, batch = self._cores.now_s, self.taken
        if not batch or batch - self._epoch_start == self._epoch_batches:
            self._begin_epoch()
        cpu_s = None
        if self._log.workers:
            while batch not in self._ready:
                self._cores.step()
                if self._cores.now_s > self._deadline_s:
                    raise Killed
            self._ready.remove(batch)
        else:
            wait_s, cpu_s = self._fetch(batch)
            self._cores.run_until(self._cores.now_s + wait_s)
            self._cores.occupy(cpu_s, 1)
            if self._cores.now_s > self._deadline_s:
                raise Killed
        self.taken += 1
        self._log.take(asked_s, self._cores.now_s, cpu_s)
        self._dispatch()
        return batch

    def _begin_epoch(self) -> None:
        if self.taken:
            self._log.end_epoch()
        restart_s = self._restart_s(self.taken == 0)
        self._cores.run_until(self._cores.now_s + restart_s)
        self._log.begin_epoch(self._cores.now_s, restart_s)
        self._epoch_start = self._dispatched = self.taken
        for _ in range(self._log.capacity):
            self._dispatch()

    def _dispatch(self) -> None:
        """Send the epoch's next batch to its worker, if there is one."""
        number = self._dispatched - self._epoch_start
        if number == self._epoch_batches or not self._log.workers:
            return
        worker = number % self._log.workers
        self._queues[worker].append(self._dispatched)
        self._dispatched += 1
        if len(self._queues[worker]) == 1:
            self._load(worker)

    def _load(self, worker: int) -> None:
        """Load the first batch in the queue of `worker`: it waits, then computes."""
        wait_s, cpu_s = self._fetch(self._queues[worker][0])
        self._cpu_s[worker] += cpu_s

        def ended() -> None:
            queue = self._queues[worker]
            self._ready.add(queue.popleft())
            self._log.finish(worker, self._cores.now_s, self._cpu_s[worker])
            if queue:
                self._load(worker)

        def compute() -> None:
            self._cores.compute(cpu_s, 1, ended, loads=True)

        if wait_s:
            self._cores.wait(wait_s, compute)
        else:
            compute()
