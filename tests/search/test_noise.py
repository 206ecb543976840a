"""Searches on a machine with bursts of other work: a recording of one, searched again and again.

`benchmarks/record_space.py` wrote the recording: twelve configurations of a ResNet-18, eight processes of each, while
another process kept a core busy in bursts. The noise is the machine's own, none of it simulated.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import pytest
from support.bench import Bench
from support.facts import cpu_facts
from support.recorded import RecordedBackend, Recording, best_of, recorded_as

from autotune.config import TrainConfig
from autotune.stats import throughput

RECORDING = Path(__file__).parent / "noisy_space.json.gz"
SEARCHES = 20
SPEC = {
    "data": {"synthetic": {"image_size": 64}},
    "training": {"effective_batch_size": 32},
    "baseline": {"micro_batch_size": 8},
    "budget": "30m",
    "strategy": {"name": "gp"},
    "search": {
        "micro_batch_size": [8, 16, 32],
        "amp_dtype": ["none", "bf16"],
        "memory_format": ["contiguous", "channels_last"],
        "num_workers": 0,
        "compile": "none",
        "fused_optimizer": False,
        "num_threads": 4,
        "activation_checkpointing": False,
    },
}


@pytest.fixture(scope="module")
def recording() -> Recording:
    return Recording(RECORDING)


def test_the_recorded_machine_is_as_noisy_as_it_should_be(recording: Recording) -> None:
    """About 10 % between processes, before anything is left out."""
    spreads = [statistics.stdev(math.log(throughput(run.blocks)) for run in runs) for runs in recording.runs.values()]
    assert 0.05 < statistics.median(spreads) < 0.3


@pytest.mark.slow
def test_searches_find_the_best_and_what_they_emit_comes_true(recording: Recording, tmp_path: Path) -> None:
    truth = recording.truth
    best = truth(best_of(recording))
    chosen, emitted = [], []
    for seed in range(SEARCHES):
        folder = tmp_path / str(seed)
        folder.mkdir()
        bench = Bench(folder)
        backend = RecordedBackend(recording, bench.clock, cpu_facts(), seed)
        result = bench.search(backend, **SPEC | {"strategy": {"name": "gp", "seed": seed}}).best
        config = recorded_as(TrainConfig.from_dict(result["config"]))
        chosen.append(truth(config) / best)
        emitted.append(result["measured"]["samples_per_s"] / truth(config))
    print("chosen ÷ best:", [round(ratio, 3) for ratio in sorted(chosen)])
    print("emitted ÷ long measurement:", [round(ratio, 3) for ratio in sorted(emitted)])
    assert sum(ratio > 0.97 for ratio in chosen) >= 19
    assert sum(abs(ratio - 1) < 0.03 for ratio in emitted) >= 18
