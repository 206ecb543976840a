"""What a loader's processes hold, with little time spent on looking."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from autotune.trial.loader_memory import LoaderMemory

MIB = 1 << 20


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Worker:
    """`shared` bytes that the trial's process has too, `own` of its own; a close look takes 0.2 s."""

    def __init__(self, clock: Clock, own: int, shared: int = 100 * MIB) -> None:
        self.own, self.shared, self.looks, self.gone = own, shared, 0, False
        self._clock = clock

    def memory_info(self) -> Any:
        if self.gone:
            raise psutil.NoSuchProcess(1)
        return SimpleNamespace(rss=self.own + self.shared + 10 * MIB, shared=10 * MIB)

    def memory_full_info(self) -> Any:
        self._clock.now_s += 0.2
        self.looks += 1
        return SimpleNamespace(uss=self.own)


def of(clock: Clock, *workers: Worker) -> LoaderMemory:
    return LoaderMemory(workers, clock)  # type: ignore[arg-type]


def test_one_at_a_time_is_looked_at_and_seldom() -> None:
    clock = Clock()
    workers = [Worker(clock, 30 * MIB), Worker(clock, 50 * MIB)]
    memory = of(clock, *workers)
    assert memory.read() == 60 * MIB, "the other is taken to hold as much"
    clock.now_s = 20.0
    assert memory.read() == 60 * MIB
    assert [worker.looks for worker in workers] == [1, 0]
    clock.now_s = 20.3
    assert memory.read() == 80 * MIB
    clock.now_s = 41.0
    memory.read()
    assert [worker.looks for worker in workers] == [2, 1]


def test_what_is_allocated_between_two_looks_counts_at_once() -> None:
    clock = Clock()
    worker = Worker(clock, 30 * MIB)
    memory = of(clock, worker)
    memory.read()
    worker.own += 5 * MIB
    assert memory.read() == 35 * MIB


def test_what_a_process_has_copied_of_the_trials_pages_shows_at_the_next_look() -> None:
    """PyTorch's issue 13246: counting references to the samples of a list copies it, into each process."""
    clock = Clock()
    worker = Worker(clock, 30 * MIB)
    memory = of(clock, worker)
    memory.read()
    worker.own, worker.shared = worker.own + 5 * MIB, worker.shared - 5 * MIB
    assert memory.read() == 30 * MIB
    clock.now_s = 21.0
    assert memory.read() == 35 * MIB


def test_a_process_that_has_ended_holds_nothing() -> None:
    clock = Clock()
    workers = [Worker(clock, 30 * MIB), Worker(clock, 50 * MIB)]
    memory = of(clock, *workers)
    memory.read()
    clock.now_s = 30.0
    memory.read()
    workers[0].gone = True
    assert memory.read() == 50 * MIB
    workers[1].gone = True
    assert memory.read() is None
    assert of(clock).read() is None


@pytest.mark.skipif(sys.platform != "linux", reason="what is shared is known on Linux alone")
def test_a_real_process() -> None:
    code = "import sys; kept = bytearray(b'1' * (64 << 20)); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        held = LoaderMemory([psutil.Process(child.pid)]).read()
        assert held is not None
        assert 64 * MIB < held < 160 * MIB
        child.communicate()
