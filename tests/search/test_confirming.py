"""The rounds of the confirmation: how many are run, how long, and who is left out of them. On a machine without noise
or with little, whose speed each test says for each round."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection
from typing import Any

import pytest
from support.bench import Bench
from support.simulation import FormulaBackend, Training

from autotune.config import TrainConfig
from autotune.records import Purpose, TrialRequest, TrialResult
from autotune.search.decide import confirm
from autotune.search.policy import SHORTEST_RUN_S

SPACE: dict[str, Any] = {
    "micro_batch_size": 32,
    "num_workers": [0, 2],
    "prefetch_factor": 2,
    "pin_memory": False,
    "amp_dtype": "none",
    "memory_format": "contiguous",
    "compile": "none",
    "fused_optimizer": False,
    "num_threads": 4,
    "activation_checkpointing": False,
}
"""The baseline, and one other that computes the same: nothing to be tested against a reference."""
FEWEST_ROUNDS = 2


def machine(
    bench: Bench,
    at_round: Callable[[int], float] = lambda _number: 1.0,
    training: Training = lambda _, result: result,
    noise: float = 0.0,
) -> FormulaBackend:
    """1000 samples/s, and half as many again with loader processes. `at_round`: what a round's speeds are multiplied
    by; round 0 is the search."""

    def speed(config: TrainConfig) -> float:
        return (1500.0 if config.num_workers else 1000.0) * at_round(backend.requests[-1].seed)

    backend = bench.backend(speed, noise=noise, training=training)
    return backend


def rounds_of(bench: Bench, config: TrainConfig) -> int:
    runs = [record for record in bench.folder.read_trials() if record.purpose is Purpose.CONFIRM]
    return sum(record.result.config == config for record in runs)


def test_rounds_go_on_until_the_throughput_is_known_to_two_percent(bench: Bench) -> None:
    """Every other round is 8 % slower for both: their ratio is clear at once, what is emitted as throughput is not."""
    best = bench.search(
        machine(bench, lambda number: 1.04 if number % 2 else 0.96, noise=0.003), search=SPACE, use_all=True
    ).best
    low, high = best["measured"]["samples_per_s_ci95"]
    rounds = rounds_of(bench, TrainConfig.from_dict(best["config"]))
    slow_changes = math.sqrt(1 + (rounds + 1) / 16)  # which no round makes less
    assert math.log(high / low) / slow_changes < math.log(1.025 / 0.975), "the soak, one more run, may move it a little"
    assert low < 1500 < high
    assert best["speedup"]["ratio"] == pytest.approx(1.5, rel=0.003)
    assert best["speedup"]["ci95"] == pytest.approx([1.5, 1.5], rel=0.015)  # what the measuring itself is true to
    assert rounds > FEWEST_ROUNDS


def test_on_a_steady_machine_the_fewest_rounds_do(bench: Bench) -> None:
    best = bench.search(machine(bench), search=SPACE).best
    assert rounds_of(bench, TrainConfig.from_dict(best["config"])) == FEWEST_ROUNDS


def waiting_in(rounds: Collection[int]) -> Training:
    """In these rounds, the data comes late where loader processes fetch it: 13 % of a step instead of 2 %."""

    def training(request: TrialRequest, result: TrialResult) -> TrialResult:
        if not request.config.num_workers or request.seed not in rounds:
            return result
        blocks = tuple(
            block.model_copy(update={"phases": {**block.phases, "data_wait": 0.15 * block.seconds}})
            for block in result.blocks
        )
        return result.model_copy(update={"blocks": blocks})

    return training


@pytest.mark.parametrize(("late_in", "is_refused"), [({1}, False), ({1, 2}, True)])
def test_a_constraint_on_a_measure_refuses_after_two_rounds_and_not_after_one(
    bench: Bench, late_in: Collection[int], is_refused: bool
) -> None:
    limit = "data_wait_fraction <= 0.1"
    best = bench.search(machine(bench, training=waiting_in(late_in)), search=SPACE, constraints=[limit]).best
    faster = TrainConfig.from_dict(best["baseline"]["config"]).replace(num_workers=2, prefetch_factor=2)
    assert (TrainConfig.from_dict(best["config"]) == faster) is not is_refused
    refused = [TrainConfig.from_dict(entry["config"]) for entry in best["stability"]["refused"]]
    assert refused == ([faster] if is_refused else [])
    assert rounds_of(bench, faster) == FEWEST_ROUNDS
    assert best["stability"]["verdict"] == "stable"
    assert math.isclose(best["speedup"]["ratio"], 1.0 if is_refused else 1.5)


def stalling(_request: TrialRequest, result: TrialResult) -> TrialResult:
    """Every other block takes twice as long as the next: a run has to be long to know its rate."""
    blocks = tuple(
        block.model_copy(update={"seconds": block.seconds * (4 / 3 if number % 2 else 2 / 3)})
        for number, block in enumerate(result.blocks)
    )
    return result.model_copy(update={"blocks": blocks})


def confirming_limits(bench: Bench, backend: FormulaBackend, budget: str = "5m") -> list[float]:
    """Seconds that runs were given once two rounds had shown how much they differ."""
    bench.search(backend, search=SPACE, use_all=True, budget=budget)
    runs = {record.result.seed for record in bench.folder.read_trials() if record.purpose is Purpose.CONFIRM}
    return [request.time_limit_s for request in backend.requests if request.seed in runs and request.seed > 2]


def test_runs_are_long_where_processes_agree_and_blocks_do_not(bench: Bench) -> None:
    limits = confirming_limits(bench, machine(bench, training=stalling))
    assert min(limits) > 3 * SHORTEST_RUN_S


def test_runs_are_short_and_many_where_processes_differ(bench: Bench) -> None:
    limits = confirming_limits(bench, machine(bench, noise=0.08), budget="2m")
    assert max(limits) == SHORTEST_RUN_S
    assert len(limits) > 10


@pytest.mark.parametrize(
    ("first_two", "fewest", "most"),
    [
        pytest.param((1.5, 1.5), 2, 2, id="faster in both rounds"),
        pytest.param((0.9, 1.5), 3, 20, id="slower in the first"),
    ],
)
def test_stability_tests_wait_until_the_leader_is_faster_beyond_doubt(
    bench: Bench, first_two: tuple[float, float], fewest: int, most: int
) -> None:
    """Gains of bf16 over the baseline in the first two rounds; in the search and all other rounds it is 1.5."""
    in_round = {1: first_two[0], 2: first_two[1]}

    def speed(config: TrainConfig) -> float:
        request = backend.requests[-1]
        gain = 1.5 if request.watch_training else in_round.get(request.seed, 1.5)
        return 1000.0 * (gain if config.amp_dtype == "bf16" else 1.0)

    backend = bench.backend(speed, noise=0.0)
    bf16_or_not = SPACE | {"num_workers": 0, "amp_dtype": ["none", "bf16"]}
    best = bench.search(backend, search=bf16_or_not).best
    purposes = [record.purpose for record in bench.folder.read_trials()]
    before = purposes[: purposes.index(Purpose.REFERENCE)]
    assert fewest <= before.count(Purpose.CONFIRM) / 2 <= most
    assert best["config"]["amp_dtype"] == "bf16"
    assert best["stability"]["verdict"] == "stable"


def test_runs_are_long_where_a_round_is_long_in_any_case(bench: Bench) -> None:
    """The baseline's steps of 2 s make each round last 10 s: a run of 0.8 s of the other would save next to nothing. At
    the end, little time may be left."""

    def speed(config: TrainConfig) -> float:
        return 1500.0 if config.num_workers else 64.0

    limits = confirming_limits(bench, bench.backend(speed, noise=0.08))
    assert statistics.median(limits) > 2 * SHORTEST_RUN_S


def test_rounds_end_where_there_is_no_time_for_a_run_of_the_next(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although a round seems to fit: what runs took and what they are expected to take may differ."""
    asked = []

    def no_time(*_arguments: object, **_options: object) -> None:
        asked.append(bench.clock())
        assert len(asked) < 10, "it would be asked for ever"

    monkeypatch.setattr(confirm, "confirming_run", no_time)
    assert bench.search(machine(bench), search=SPACE).best["stability"]["verdict"] == "unconfirmed"
    assert len(asked) == 1
