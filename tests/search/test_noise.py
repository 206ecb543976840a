"""Searches on a machine with bursts of other work: a recording of one, searched again and again.

`benchmarks/record_space.py` wrote the recording: twelve configurations of a ResNet-18, eight processes of each, while
another process kept a core busy in bursts. The noise is the machine's own, none of it simulated.
`benchmarks/recorded_noise.py` searches it with as many seeds as one likes.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import pytest
from support.recorded import Recording, search_recorded

from autotune.stats import throughput

SEEDS = 5


@pytest.fixture(scope="module")
def recording() -> Recording:
    return Recording.noisy()


def test_the_recorded_machine_is_as_noisy_as_it_should_be(recording: Recording) -> None:
    """About 10 % between processes, before anything is left out."""
    spreads = [statistics.stdev(math.log(throughput(run.blocks)) for run in runs) for runs in recording.runs.values()]
    assert 0.05 < statistics.median(spreads) < 0.3


@pytest.mark.slow
def test_searches_find_the_best_and_what_they_emit_comes_true(recording: Recording, tmp_path: Path) -> None:
    found = [search_recorded(recording, tmp_path, seed) for seed in range(SEEDS)]
    assert sum(one.chosen_over_best > 0.97 for one in found) >= SEEDS - 1
    assert sum(abs(one.emitted_over_truth - 1) < 0.03 for one in found) >= SEEDS - 1
