"""What an epoch takes by calculation, against the same loader in virtual time and against what can be seen at once."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.virtual_training import SAMPLES, VirtualTraining

from autotune.measure import edge_seconds, epoch_seconds, pace


@given(
    batches=st.integers(1, 60),
    workers=st.integers(1, 8),
    prefetch=st.integers(1, 4),
    fetch_s=st.floats(0.001, 2.0),
    step_s=st.floats(0.001, 2.0),
)
def test_an_epoch_takes_what_the_loader_in_virtual_time_takes(
    batches: int, workers: int, prefetch: int, fetch_s: float, step_s: float
) -> None:
    world = {"workers": workers, "prefetch": prefetch, "fetch_s": fetch_s, "step_s": step_s, "batches": batches}
    per_s = VirtualTraining(**world).run_of_hours(epochs=3)
    calculated = epoch_seconds(batches, workers=workers, prefetch=prefetch, fetch_s=[fetch_s], step_s=step_s)
    assert calculated == pytest.approx(batches * SAMPLES / per_s)


def test_the_last_round_of_an_epoch_is_not_full() -> None:
    """37 batches on 8 workers are 5 rounds, of which the last has 5 batches."""
    seconds = epoch_seconds(37, workers=8, prefetch=2, fetch_s=[1.1], step_s=0.1)
    assert seconds == pytest.approx(5 * 1.1 + 5 * 0.1)


@pytest.mark.parametrize(("step_s", "expected"), [(0.5, 0.5), (0.01, 0.25)])
def test_the_pace_is_that_of_the_slower_side(step_s: float, expected: float) -> None:
    assert pace(workers=4, prefetch=2, fetch_s=[1.0], step_s=step_s) == pytest.approx(expected)


def test_batches_come_in_order_so_a_slow_one_holds_others_up() -> None:
    """One of fifty takes 2 s: the seven other workers load two batches each and wait."""
    fetch_s = [0.1] * 49 + [2.0]
    mean_s = sum(fetch_s) / 50
    assert pace(workers=8, prefetch=2, fetch_s=fetch_s) > 1.5 * mean_s / 8


def test_without_workers_loading_and_training_take_turns_and_edges_are_free() -> None:
    assert epoch_seconds(10, workers=0, prefetch=0, fetch_s=[0.2], step_s=0.1) == pytest.approx(3.0)
    assert edge_seconds(10, workers=0, prefetch=0, fetch_s=[0.2], step_s=0.1) == pytest.approx(0.0)


def test_a_compute_bound_epoch_waits_for_its_first_batch() -> None:
    assert edge_seconds(100, workers=4, prefetch=2, fetch_s=[0.3], step_s=0.2) == pytest.approx(0.3)


def test_a_very_long_epoch_takes_the_pace_of_its_middle() -> None:
    assert epoch_seconds(10**7, workers=4, prefetch=2, fetch_s=[0.4], step_s=0.01) == pytest.approx(10**6, rel=1e-3)


@pytest.mark.parametrize(("workers", "prefetch"), [(2, 2), (8, 2), (8, 4), (16, 2)])
@pytest.mark.parametrize("spread", [0.02, 0.1, 0.3])
def test_the_pace_is_that_of_a_long_run(workers: int, prefetch: int, spread: float) -> None:
    """Against 8,000 batches in virtual time, of which each takes one of a hundred known times."""
    generator = random.Random(1)
    known = [generator.lognormvariate(0, spread) for _ in range(100)]
    for step_s in (0.001, 1.1 / workers):
        drawn = [generator.choice(known) for _ in range(10_000)]
        world = {"workers": workers, "prefetch": prefetch, "fetch_s": drawn.__getitem__, "step_s": step_s}
        per_s = VirtualTraining(**world).run_of_hours()
        assert pace(workers=workers, prefetch=prefetch, fetch_s=known, step_s=step_s) == pytest.approx(
            SAMPLES / per_s, rel=0.03
        )


@pytest.mark.parametrize("batches", [20, 40, 160, 400])
def test_an_epoch_of_uneven_batches_takes_what_many_take_on_average(batches: int) -> None:
    """Against 400 epochs in virtual time. Of three calculated epochs of 160 batches, the mean was 1.5 % off."""
    generator = random.Random(2)
    known = [generator.lognormvariate(0, 0.1) for _ in range(100)]
    drawn = [generator.choice(known) for _ in range(401 * batches)]
    world = {"workers": 8, "prefetch": 2, "fetch_s": drawn.__getitem__, "step_s": 0.05, "batches": batches}
    per_s = VirtualTraining(**world).run_of_hours(epochs=400)
    calculated = epoch_seconds(batches, workers=8, prefetch=2, fetch_s=known, step_s=0.05)
    assert calculated == pytest.approx(batches * SAMPLES / per_s, rel=0.008)
