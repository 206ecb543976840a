"""What a trial sees of its loader: batches as they are, epochs as a user's loop begins them, when each was loaded."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing import resource_sharer
from multiprocessing.reduction import ForkingPickler
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, default_collate

from autotune.config import TrainConfig
from autotune.measure import LoaderLog
from autotune.records import TrialStatus
from autotune.training import build_dataloader
from autotune.trial.failure import classify, describe
from autotune.trial.observed_loader import Finishes, ObservedLoader, _death_behind

LOAD_S = 0.02


class Slow(Dataset[int]):
    """Twelve samples that wait before they are there."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> int:
        time.sleep(LOAD_S)
        return index


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(12))


class OwnBatches(Slow):
    def collate_fn(self, samples: list[int]) -> dict[str, Any]:
        return {"own": torch.tensor(samples)}


def observe(
    dataset: Any, batches: int, *, workers: int = 2, prefetch: int = 2, method: str | None = None
) -> tuple[list[Any], LoaderLog]:
    config = TrainConfig(
        micro_batch_size=2, num_workers=workers, prefetch_factor=prefetch if workers else None, pin_memory=False
    )
    observed = ObservedLoader(config)
    given = {"multiprocessing_context": method} if method else {}
    if workers:
        given["collate_fn"] = observed.observing(getattr(dataset, "collate_fn", None) or default_collate)
    loader = build_dataloader(dataset, config, device=torch.device("cpu"), seed=0, **given)
    taken = list(islice(observed.batches(loader), batches))
    return taken, observed.read()


def test_two_epochs_are_told_apart_and_their_batches_are_the_data_sets_own() -> None:
    taken, log = observe(Slow(), 12)
    assert sorted(torch.cat(taken[:6]).tolist()) == sorted(torch.cat(taken[6:]).tolist()) == list(range(12))
    assert log.epoch_batches == 6
    assert [epoch.first_take for epoch in log.epochs] == [0, 6]
    assert log.taken == 12
    assert log.left == 0
    assert log.level == 0


def test_every_batch_has_its_process_and_takes_as_long_as_its_samples() -> None:
    """Lengths are exact only between two moments that the same process writes down: the loop's process may be halted
    between sending a batch and noting when. This machine may do anything else, but it cannot sleep less than told."""
    _, log = observe(Slow(), 12, prefetch=3)
    assert [len(fetches) for fetches in log.fetches] == [6, 6]
    assert all(fetch.first == (position == 0) for of_one in log.fetches for position, fetch in enumerate(of_one))
    fetches = [fetch for of_one in log.fetches for fetch in of_one if fetch.saturated]
    assert len(fetches) >= 4, "a whole epoch is sent at once: two of three follow another without a pause"
    assert all(fetch.seconds >= 2 * LOAD_S for fetch in fetches)
    assert all(fetch.cpu_s is not None and fetch.cpu_s >= 0 for fetch in fetches)
    waits = sum(fetch.seconds - (fetch.cpu_s or 0.0) for fetch in fetches)
    assert waits >= len(fetches) * 1.5 * LOAD_S, "the processes were asleep most of the time"


def test_what_is_loaded_ahead_is_the_level_of_the_queue() -> None:
    config = TrainConfig(micro_batch_size=2, num_workers=2, prefetch_factor=2)
    observed = ObservedLoader(config)
    collate = observed.observing(default_collate)
    loader = build_dataloader(Slow(), config, device=torch.device("cpu"), seed=0, collate_fn=collate)
    batches = observed.batches(loader)
    next(batches)
    ends_s = time.monotonic() + 30
    while observed.read().level < 4 and time.monotonic() < ends_s:
        time.sleep(LOAD_S)
    assert observed.read().level == 4
    next(batches)
    assert observed.read().was_loaded(1)


def test_without_processes_what_the_loop_waits_for_is_the_loading() -> None:
    _, log = observe(Slow(), 12, workers=0)
    assert log.fetches == []
    assert all(take.waited_s >= 2 * LOAD_S for take in log.takes)
    assert all(take.cpu_s is not None and take.cpu_s < take.waited_s for take in log.takes)
    assert not log.was_loaded(3)


def test_the_end_of_a_stream_is_learnt_when_it_comes() -> None:
    _, log = observe(Stream(), 11, workers=2)
    assert log.epoch_batches is None
    _, log = observe(Stream(), 13, workers=2)
    assert log.epoch_batches == 12, "each of two processes yields the whole stream"
    assert log.epochs_ended == 1


def test_a_data_set_that_makes_its_own_batches_still_does() -> None:
    taken, log = observe(OwnBatches(), 6)
    assert all(set(batch) == {"own"} for batch in taken)
    assert sum(map(len, log.fetches)) == 6


@pytest.mark.slow
def test_processes_that_are_spawned_are_observed_too() -> None:
    taken, log = observe(Slow(), 12, method="spawn")
    assert len(taken) == 12
    assert [len(fetches) for fetches in log.fetches] == [6, 6]


def test_a_data_set_without_a_full_batch_is_refused() -> None:
    class Short(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            return iter([1])

    with pytest.raises(ValueError, match="too few samples for a batch"):
        observe(Short(), 1, workers=0)


def test_a_batch_that_cannot_be_collated_is_not_counted() -> None:
    observed = ObservedLoader(TrainConfig(num_workers=1, prefetch_factor=2))
    with pytest.raises(TypeError):
        observed.observing(sum)(["a"])
    assert observed.read().level == 0


def test_finishes_are_read_once_and_in_order() -> None:
    finishes = Finishes(2)
    for _ in range(3):
        finishes.note(1)
    assert list(finishes.take(0)) == []
    first = list(finishes.take(1))
    assert len(first) == 3
    assert first == sorted(first)
    finishes.note(1)
    assert len(list(finishes.take(1))) == 1


def test_the_notes_are_shared_by_inheritance_only() -> None:
    """Spawned loader processes get them while they start; anybody else would write into a copy."""
    with pytest.raises(RuntimeError, match="inheritance"):
        ForkingPickler.dumps(ObservedLoader(TrainConfig(num_workers=1, prefetch_factor=2)).observing(list))


def nobody_answers() -> Exception:
    """What fetching a batch raises whose loader process is gone."""
    with pytest.raises(FileNotFoundError) as caught:
        resource_sharer._resource_sharer.get_connection(("/nobody/listens/here", 1))
    return caught.value


NOTICED: list[Callable[[], Exception]] = [
    nobody_answers,
    lambda: RuntimeError("DataLoader worker (pid(s) 4711) exited unexpectedly"),
    lambda: FileNotFoundError(
        'Caught FileNotFoundError in pin memory thread for device 0.\n  File "multiprocessing/resource_sharer.py"'
    ),
]


@pytest.mark.parametrize("noticed", NOTICED, ids=["its socket", "its pid", "the pinning thread"])
@pytest.mark.parametrize(
    ("codes", "said", "status"),
    [
        ([None, -9], "is killed by signal: Killed", TrialStatus.OOM),
        ([0, -7], "is killed by signal: Bus error", TrialStatus.OOM),
        ([-11, None], "is killed by signal: Segmentation fault", TrialStatus.FAILED),
        ([None, 3], "exited unexpectedly with exit code 3", TrialStatus.FAILED),
        ([0, None], "exit code 0, as after a KeyboardInterrupt in the data set", TrialStatus.FAILED),
    ],
)
def test_a_loader_process_that_ended_is_told_the_same_however_it_was_noticed(
    noticed: Callable[[], Exception], codes: list[int | None], said: str, status: TrialStatus
) -> None:
    workers = [SimpleNamespace(pid=4711 + number, exitcode=code) for number, code in enumerate(codes)]
    death = _death_behind(noticed(), workers)
    assert death is not None
    assert said in death
    assert classify(RuntimeError(death)) is status
    assert describe(RuntimeError(death)).signal == (signal.SIGKILL if "Killed" in said else None)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("a.jpg"),
        RuntimeError("Caught RuntimeError in DataLoader worker process 0."),
        RuntimeError("DataLoader worker (pid 4711) is killed by signal: Killed. "),
    ],
    ids=["a file", "the data set's own", "told already"],
)
def test_other_errors_of_loading_are_what_they_are(error: Exception) -> None:
    assert _death_behind(error, [SimpleNamespace(pid=4711, exitcode=-9)]) is None


class Deadly(Slow):
    """Ends its loader process at the sixth sample."""

    def __init__(self, deed: Callable[[], object]) -> None:
        self._deed = deed

    def __getitem__(self, index: int) -> int:
        if index == 5:
            self._deed()
        return index


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
@pytest.mark.parametrize(
    ("deed", "status", "said"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), TrialStatus.OOM, "Killed"),
        (interrupt, TrialStatus.FAILED, "exit code 0, as after a KeyboardInterrupt"),
        (lambda: os._exit(3), TrialStatus.FAILED, "exit code 3"),
    ],
    ids=["killed", "interrupted", "exits"],
)
@pytest.mark.parametrize("again", range(3))
def test_loader_processes_that_end_have_one_status(
    deed: Callable[[], object], status: TrialStatus, said: str, again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as sockets:  # one that is killed leaves its own behind
        monkeypatch.setitem(multiprocessing.current_process()._config, "tempdir", sockets)
        with pytest.raises(RuntimeError) as caught:
            observe(Deadly(deed), 50, prefetch=1 + again)
    assert classify(caught.value) is status
    assert said in str(caught.value)
