"""An epoch's edge where batches take unequal times to load."""

from __future__ import annotations

import random

import pytest
from support.virtual_training import VirtualTraining

from autotune.measure import edge_seconds, pace


@pytest.mark.parametrize("known", [41, 48, 64])
def test_no_worker_gets_the_slow_batches_because_of_how_many_are_known(known: int) -> None:
    """Used in turn, 48 known batches gave each of 8 workers the same six for ever: a pace 6 % too slow, and so an edge
    of 0.3 s instead of 1.5."""
    generator = random.Random(1)
    fetch_s = [1.28 * generator.lognormvariate(0, 0.1) for _ in range(known)]
    mean_s = sum(fetch_s) / known
    assert pace(workers=8, prefetch=4, fetch_s=fetch_s) == pytest.approx(mean_s / 8, rel=0.02)
    edge_s = edge_seconds(128, workers=8, prefetch=4, fetch_s=fetch_s, step_s=0.147)
    assert edge_s == pytest.approx(1.5, abs=0.5)


@pytest.mark.parametrize(("batches", "workers", "prefetch"), [(8, 8, 2), (64, 16, 4), (12, 4, 4)])
def test_an_epoch_that_the_queue_can_hold_and_that_is_too_long_to_time(
    batches: int, workers: int, prefetch: int
) -> None:
    """Once 1.2 to 2 times too fast: what was timed were steps out of a queue that all of an epoch was in."""
    generator = random.Random(2)
    world = {"workers": workers, "prefetch": prefetch, "step_s": 0.1, "batches": batches}
    truth = VirtualTraining(**world, fetch_s=2.5).run_of_hours()
    training = VirtualTraining(**world, fetch_s=lambda _batch: 2.5 * generator.lognormvariate(0, 0.03))
    _, rates = training.measure(time_limit_s=7.0, min_blocks=4)
    assert rates.sustained_per_s == pytest.approx(truth, rel=0.06)


def test_a_host_that_runs_ahead_hides_an_edge_also_from_blocks_of_one_step() -> None:
    """Confirming runs of 0.8 s on a GPU had blocks of a step or two, in which no host runs ahead by three: every edge
    counted, and the figure was 2 % too low."""
    world = {"workers": 8, "prefetch": 2, "fetch_s": 0.26, "step_s": 0.094, "batches": 64, "on_device": True}
    truth = VirtualTraining(**world).run_of_hours()
    for time_limit_s in (0.8, 1.4, 8.0):
        _, rates = VirtualTraining(**world).measure(time_limit_s=time_limit_s, min_blocks=4)
        assert rates.sustained_per_s == pytest.approx(truth, rel=0.005)
