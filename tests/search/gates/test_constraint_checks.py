"""Constraints as gates: the check of a configuration's figures, and how far one trial is from them."""

from __future__ import annotations

import pytest
from support.facts import cpu_facts
from support.runs import GIB, run, without_steps

from autotune.config import TrainConfig
from autotune.records import Block, Memory, Purpose, TrialRecord, TrialResult, WarmUp
from autotune.search.figures import figures_of
from autotune.search.gates import constraint_check, violations
from autotune.spec import parse_constraint

PHASES = {"data_wait": 0.2, "copy": 0.0, "forward_backward": 0.7, "optimizer": 0.1}
CONFIG = TrainConfig(custom=(("impl", "a"),))


def measured(first_step_s: float = 2.0, peak: int = 3 * GIB) -> TrialResult:
    block = Block(steps=10, samples=320, seconds=1.0, phases=PHASES)
    memory = Memory(reserved_bytes=peak, resident_bytes=GIB, resident_growth_bytes=GIB)
    warm_up = WarmUp(steps=2, seconds=3.0, first_step_s=first_step_s, settled=True)
    return run(config=CONFIG, blocks=[block], memory=memory).model_copy(update={"warm_up": warm_up})


def record(result: TrialResult) -> TrialRecord:
    return TrialRecord(
        number=0, purpose=Purpose.SEARCH, elapsed_s=1.0, started="2026-01-01", result=result, environment=cpu_facts()
    )


def test_figures_are_knobs_and_what_all_runs_together_measured() -> None:
    figures = figures_of(CONFIG, [measured(), measured(first_step_s=5.0, peak=4 * GIB)])
    assert figures["impl"] == "a"
    assert figures["effective_batch_size"] == 32
    assert figures["samples_per_s"] == pytest.approx(320)
    assert figures["step_time_s"] == pytest.approx(0.1)
    assert figures["data_wait_fraction"] == pytest.approx(0.2)
    assert figures["first_step_s"] == 5.0
    assert figures["peak_memory_bytes"] == 4 * GIB
    assert figures["energy_j_per_sample"] is None


def test_a_check_is_named_as_the_user_wrote_it_and_states_both_sides() -> None:
    check = constraint_check(parse_constraint("peak_memory_bytes <= 2GiB"), figures_of(CONFIG, [measured()]))
    assert (check.name, check.value, check.limit) == ("peak_memory_bytes <= 2GiB", 3 * GIB, 2 * GIB)
    assert not check.passed
    assert not check.holds


def test_a_knob_that_does_not_apply_leaves_nothing_open() -> None:
    check = constraint_check(parse_constraint("prefetch_factor == none"), figures_of(CONFIG, [measured()]))
    assert (check.passed, check.conclusive, check.detail) == (True, True, "")


def test_what_nobody_counted_is_inconclusive() -> None:
    check = constraint_check(parse_constraint("energy_j_per_sample < 1"), figures_of(CONFIG, [measured()]))
    assert check.passed
    assert not check.conclusive
    assert check.detail == "without energy_j_per_sample"


def test_violations_of_one_trial_in_the_constraints_order() -> None:
    constraints = [parse_constraint(text) for text in ("peak_memory_bytes <= 2GiB", "micro_batch_size <= 64")]
    assert violations(record(measured()), constraints) == [0.5, -0.5]
    assert violations(record(measured()), []) == []


def test_a_trial_without_figures_is_judged_by_its_knobs() -> None:
    constraints = [parse_constraint(text) for text in ("peak_memory_bytes <= 2GiB", "micro_batch_size <= 16")]
    assert violations(record(without_steps()), constraints) == [-1.0, 1.0]
