"""The stability tests: which runs are made for them, which are shared, and what a search makes of their verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from optuna.samplers import RandomSampler
from support.bench import Bench
from support.facts import cpu_facts, cuda_facts
from support.runs import activation, gradient, run
from support.simulation import START_UP_S, Behaviour, Training, good_sense

from autotune.config import TrainConfig
from autotune.records import Check, Facts, Failure, Purpose, TrialRequest, TrialResult, TrialStatus
from autotune.search.budget import Budget
from autotune.search.build_space import build_space
from autotune.search.decide.actions import Trial
from autotune.search.decide.checks import checks_of, soak_checks
from autotune.search.decide.study import StudySoFar
from autotune.search.decide.watched import Watched
from autotune.search.ledger import Ledger
from autotune.search.plain import reference_of
from autotune.search.policy import REFERENCE_SEEDS, USUAL_STEPS
from autotune.search.runner import Listener, TrialRunner
from autotune.search.strategies import Learning

STEPS = 20
PLAIN = TrainConfig(micro_batch_size=32, grad_accum_steps=4)
BF16 = PLAIN.replace(amp_dtype="bf16", memory_format="channels_last", fused_optimizer=True)
FP16 = PLAIN.replace(amp_dtype="fp16")
LOADER = {"num_workers": 2, "prefetch_factor": 2, "pin_memory": True, "num_threads": 2}


def fast(_config: TrainConfig) -> float:
    """64 ms for a step of 128 samples."""
    return 2000.0


def failing(status: TrialStatus, which: Callable[[TrainConfig], bool]) -> Behaviour:
    return lambda config: status if which(config) else fast(config)


def is_plain(config: TrainConfig) -> bool:
    return config.amp_dtype == "none"


class Desk:
    """The stability tests of one study, run as they are asked for; each `resume` is another session of it."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._ledger: Ledger | None = None
        bench.folder.open()

    def resume(
        self,
        behaviour: Behaviour = fast,
        *,
        facts: Facts | None = None,
        as_told: Training = lambda _request, result: result,
        **sections: Any,
    ) -> Desk:
        self._end_session()
        facts = facts or cpu_facts()
        loaded = self._bench.load(**sections)
        space = build_space(loaded.spec, facts)
        self.backend = self._bench.backend(behaviour, facts=facts, training=as_told)
        self._ledger = Ledger(
            self._bench.folder,
            space,
            RandomSampler(),
            Learning.PRUNED,
            {},
            loaded.folder,
            open_study=self._bench.open_study,
        )
        self.budget = Budget(loaded.spec.budget, self._bench.clock)
        self.runner = TrialRunner("study", self.backend, self.ledger, self.budget, facts, Listener())
        self._found = StudySoFar(
            spec=loaded.spec,
            facts=facts,
            space=space,
            budget=self.budget.now,
            known_before=len(self._ledger.records),
        )
        return self

    @property
    def study(self) -> StudySoFar:
        """In the session that is open; in a first one, where none is."""
        if self._ledger is None:
            self.resume()
        return dataclasses.replace(self._found, records=tuple(self.ledger.records), budget=self.budget.now)

    @property
    def watched(self) -> Watched:
        return Watched(self.study)

    @property
    def ledger(self) -> Ledger:
        assert self._ledger is not None
        return self._ledger

    def test(self, config: TrainConfig) -> None:
        """Each of the tests of `config`, as far as there is time for them."""
        while (test := self.watched.next_run(config)) is not None:
            self.runner.run(test)

    def search_for(self, config: TrainConfig) -> None:
        """The baseline's trial, as if `config` were it."""
        number = self.ledger._study.ask().number
        request = TrialRequest(config=config, seed=0, time_limit_s=1.0)
        trial = Trial(request=request, purpose=Purpose.BASELINE, deadline_s=60.0)
        self.runner.run(trial, optuna_trial=number)

    def spend_all_but(self, seconds: float) -> None:
        self._bench.clock.advance(self.budget.remaining_s - seconds)

    def made(self) -> list[tuple[str, TrainConfig, int]]:
        """Purpose, configuration and seed of each run on record."""
        return [(str(record.purpose), record.result.config, record.result.seed) for record in self.ledger.records]

    def checks(self, config: TrainConfig) -> dict[str, Check]:
        """Of a configuration that has come through one round beside the baseline."""
        rounds, baseline = {1: run(config=config)}, {1: run(config=PLAIN)}
        return {check.name: check for check in checks_of(self.study, config, rounds, baseline)}

    def close(self) -> None:
        self._end_session()
        self._bench.folder.close()

    def _end_session(self) -> None:
        if self._ledger is not None:
            self._ledger.close()


@pytest.fixture
def desk(bench: Bench) -> Iterator[Desk]:
    desk = Desk(bench)
    yield desk
    desk.close()


def test_plain_arithmetic_keeps_what_feeds_it() -> None:
    tuned = BF16.replace(compile="default", activation_checkpointing=True, fp32_precision="tf32", **LOADER)
    assert reference_of(tuned, cpu_facts()) == PLAIN.replace(**LOADER)
    assert reference_of(tuned, cuda_facts()) == PLAIN.replace(fp32_precision="ieee", **LOADER)


def test_what_is_compared_with_plain_arithmetic_is_what_computes_otherwise(desk: Desk) -> None:
    assert desk.watched.needs_reference(BF16)
    assert desk.watched.needs_reference(PLAIN.replace(compile="default"))
    assert not desk.watched.needs_reference(PLAIN.replace(**LOADER))
    on_cuda = desk.resume(facts=cuda_facts())
    assert on_cuda.watched.needs_reference(PLAIN)  # PyTorch's own choice: tf32 in convolutions
    assert not on_cuda.watched.needs_reference(PLAIN.replace(fp32_precision="ieee", **LOADER))


def test_what_computes_as_the_baseline_does_is_not_compared(desk: Desk) -> None:
    desk.resume(facts=cuda_facts())
    desk.search_for(BF16)
    for same in (BF16.replace(**LOADER), BF16.replace(micro_batch_size=128, grad_accum_steps=1)):
        assert not desk.watched.needs_reference(same)
        assert desk.watched.is_tested(same)
        assert "loss_rise" in desk.checks(same)
        assert "probe" not in desk.checks(same)
    for change in ({"memory_format": "contiguous"}, {"amp_dtype": "fp16"}, {"compile": "default"}):
        assert desk.watched.needs_reference(BF16.replace(**change))


def test_in_fp16_the_micro_batch_decides_what_underflows(desk: Desk) -> None:
    desk.resume(facts=cuda_facts())
    desk.search_for(FP16)
    assert not desk.watched.needs_reference(FP16.replace(**LOADER))
    assert desk.watched.needs_reference(FP16.replace(micro_batch_size=64, grad_accum_steps=2))


def test_the_reference_then_a_probe_that_follows_it(desk: Desk) -> None:
    desk.test(BF16)
    assert desk.made() == [("reference", PLAIN, 0), ("probe", BF16, 0)]
    check = desk.checks(BF16)["loss_against_reference"]
    assert check.passed
    assert check.conclusive
    assert desk.watched.is_tested(BF16)


def test_two_more_seeds_where_the_probe_leaves_the_reference(desk: Desk) -> None:
    desk.resume(as_told=above_references(0.08)).test(BF16)
    assert desk.made() == [
        ("reference", PLAIN, 0),
        ("probe", BF16, 0),
        ("reference", PLAIN, 1),
        ("reference", PLAIN, 2),
    ]
    assert all(request.watch_training for request in desk.backend.requests)
    assert [request.max_steps for request in desk.backend.requests] == [STEPS] * 4
    assert all(request.min_blocks == request.max_blocks >= 1_000_000 for request in desk.backend.requests)
    assert desk.watched.is_tested(BF16)


def test_a_study_without_a_soak_is_compared_over_the_usual_steps(desk: Desk) -> None:
    desk.resume(stability={"soak_steps": 0}, budget="5m").test(BF16)
    assert {request.max_steps for request in desk.backend.requests} == {USUAL_STEPS}


def test_seeds_begin_with_that_of_the_training(desk: Desk) -> None:
    desk.resume(
        as_told=departing(lambda config: not is_plain(config)), training={"effective_batch_size": 128, "seed": 7}
    ).test(BF16)
    assert [seed for _, _, seed in desk.made()] == [7, 7, 8, 9, 10, 11]


def test_the_probe_takes_no_more_steps_than_the_reference_had_time_for(desk: Desk) -> None:
    slow = desk.resume(lambda config: 150.0 if is_plain(config) else 2000.0)
    slow.test(BF16)
    had_time_for = [len(record.result.steps.losses) for record in desk.ledger.records if record.result.steps]
    assert had_time_for[0] < STEPS
    assert had_time_for[1] == had_time_for[0]
    assert [request.max_steps for request in desk.backend.requests] == [STEPS, had_time_for[0]]
    assert {request.time_limit_s for request in desk.backend.requests} == {desk.budget.now.watched_run_s(0.0, 0.0)}


def test_they_train_for_what_a_start_and_a_step_of_the_search_leave_of_the_tests_share(desk: Desk) -> None:
    desk.resume(lambda config: config.effective_batch_size * 4.0, budget="60s")
    desk.search_for(PLAIN)
    desk.test(BF16)
    limit_s = desk.budget.now.watched_run_s(START_UP_S + 0.25, 0.25)
    assert limit_s < desk.budget.now.watched_run_s(0.0, 0.25)
    limits_s = [request.time_limit_s for request in desk.backend.requests if request.watch_training]
    assert limits_s == [pytest.approx(limit_s, rel=0.02)] * 2  # no two processes are equally fast


def test_what_differs_only_in_how_data_comes_in_shares_the_runs(desk: Desk) -> None:
    desk.test(BF16)
    fed_otherwise = BF16.replace(**LOADER)
    assert desk.watched.is_tested(fed_otherwise)
    assert desk.watched.missing(fed_otherwise) is None
    assert desk.watched.runs_s(fed_otherwise, 1.0, 1.0, 1.0) == 0.0
    desk.test(fed_otherwise)
    assert len(desk.made()) == 2
    assert "loss_against_reference" in desk.checks(fed_otherwise)


@pytest.mark.parametrize(
    "change", [{"compile": "default"}, {"memory_format": "contiguous"}, {"activation_checkpointing": True}]
)
def test_another_arithmetic_is_probed_against_the_same_references(desk: Desk, change: dict[str, Any]) -> None:
    desk.test(BF16)
    other = BF16.replace(**change)
    assert not desk.watched.is_tested(other)
    desk.test(other)
    assert desk.made()[2:] == [("probe", other, 0)]
    assert desk.watched.is_tested(other)


def test_another_micro_batch_has_references_of_its_own(desk: Desk) -> None:
    desk.test(BF16)
    desk.test(BF16.replace(micro_batch_size=64, grad_accum_steps=2))
    assert len(desk.made()) == 4


def test_a_reference_that_does_not_fit_runs_in_halves(desk: Desk) -> None:
    too_large = failing(TrialStatus.OOM, lambda config: is_plain(config) and config.micro_batch_size > 8)
    desk.resume(too_large, as_told=above_references(0.08))
    desk.test(BF16)
    quarter = PLAIN.replace(micro_batch_size=8, grad_accum_steps=16)
    assert desk.made() == [
        ("reference", PLAIN, 0),
        ("reference", PLAIN.replace(micro_batch_size=16, grad_accum_steps=8), 0),
        ("reference", quarter, 0),
        ("probe", BF16, 0),
        ("reference", quarter, 1),
        ("reference", quarter, 2),
    ]
    assert desk.watched.is_tested(BF16)
    assert desk.checks(BF16)["loss_against_reference"].conclusive


@pytest.mark.parametrize(("micro", "attempts"), [(32, 3), (3, 1)])
def test_what_fits_nowhere_in_fp32_is_tested_without_it_and_the_result_says_so(
    desk: Desk, micro: int, attempts: int
) -> None:
    """An odd micro-batch cannot be halved."""
    desk.resume(failing(TrialStatus.OOM, is_plain))
    config = BF16.replace(micro_batch_size=micro)
    desk.test(config)
    assert [purpose for purpose, _, _ in desk.made()] == ["reference"] * attempts + ["probe"]
    assert {seed for _, _, seed in desk.made()} == {0}
    assert desk.backend.requests[-1].max_steps == STEPS
    assert desk.watched.is_tested(config)
    assert desk.watched.missing(config) is None
    assert desk.watched.runs_s(config, 1.0, 1.0, 1.0) == 0.0
    checks = desk.checks(config)
    assert {"probe", "gradient_underflow", "reference_runs"} <= names(checks)
    assert "loss_against_reference" not in checks
    assert (checks["reference_runs"].holds, checks["reference_runs"].conclusive) == (True, False)
    assert checks["reference_runs"].detail == "not compared with fp32, which does not fit into memory"
    desk.test(config)
    assert len(desk.made()) == attempts + 1, "what did not fit is not tried again"


def test_what_fits_nowhere_in_fp32_is_refused_for_what_its_probe_shows(desk: Desk) -> None:
    rising = departing(lambda config: not is_plain(config), factor=9.0)
    desk.resume(failing(TrialStatus.OOM, is_plain), as_told=rising).test(BF16)
    assert not desk.checks(BF16)["loss_rise"].holds


def test_a_reference_checkpoints_as_its_configuration_does_before_it_takes_smaller_micro_batches(desk: Desk) -> None:
    def stingy(config: TrainConfig) -> float | TrialStatus:
        return fast(config) if config.activation_checkpointing or not is_plain(config) else TrialStatus.OOM

    desk.resume(stingy)
    config = BF16.replace(activation_checkpointing=True)
    desk.test(config)
    checkpointed = PLAIN.replace(activation_checkpointing=True)
    assert desk.made() == [("reference", PLAIN, 0), ("reference", checkpointed, 0), ("probe", config, 0)]
    assert desk.checks(config)["loss_against_reference"].conclusive


def test_a_reference_that_diverges_ends_the_test_and_is_named(desk: Desk) -> None:
    desk.resume(failing(TrialStatus.DIVERGED, is_plain))
    desk.test(BF16)
    assert desk.made() == [("reference", PLAIN, 0)]
    missing = desk.watched.missing(BF16)
    assert missing is not None
    assert "simulated diverged" in missing.detail


def test_a_reference_that_hangs_is_not_run_again_after_every_round(desk: Desk) -> None:
    desk.resume(failing(TrialStatus.TIMEOUT, is_plain), budget="1h")
    for _ in range(3):
        desk.test(BF16)
    assert desk.made() == [("reference", PLAIN, 0)]


def test_runs_on_record_are_used_again(desk: Desk) -> None:
    desk.test(BF16)
    later = desk.resume()
    assert later.watched.is_tested(BF16)
    later.test(BF16)
    assert desk.backend.requests == []
    assert "loss_against_reference" in desk.checks(BF16)


def test_a_session_goes_on_where_the_last_one_ended(desk: Desk) -> None:
    desk.resume(as_told=above_references(0.08))
    desk.backend.interrupt_at = 3
    with pytest.raises(KeyboardInterrupt):
        desk.test(BF16)
    desk.resume(as_told=above_references(0.08)).test(BF16)
    assert [(request.config, request.seed) for request in desk.backend.requests] == [(PLAIN, 1), (PLAIN, 2)]


def test_nothing_runs_without_time(desk: Desk) -> None:
    desk.resume()
    desk.spend_all_but(0.4)
    desk.test(BF16)
    assert desk.backend.requests == []
    missing = desk.watched.missing(BF16)
    assert missing is not None
    assert not missing.holds
    assert (missing.name, missing.value, missing.limit) == ("reference_runs", 0, 1)
    assert missing.detail == "the budget ended before the reference runs of the stability tests"


def test_no_run_is_given_more_than_is_left(desk: Desk) -> None:
    desk.resume(budget="5m")
    desk.spend_all_but(5.0)
    desk.test(BF16)
    assert desk.backend.requests[0].time_limit_s == pytest.approx(5.0)
    assert desk.budget.remaining_s >= 0


def test_a_test_that_ran_out_of_time_is_missing(desk: Desk) -> None:
    desk.resume()
    desk.spend_all_but(2.0)
    desk.test(BF16)
    assert len(desk.made()) == 1
    assert not desk.watched.is_tested(BF16)
    assert desk.watched.missing(BF16) is not None


def test_what_is_missing_of_a_probe_that_leaves_its_reference_is_three_seeds(desk: Desk) -> None:
    desk.resume(as_told=above_references(0.08))
    desk.backend.interrupt_at = 3
    with pytest.raises(KeyboardInterrupt):
        desk.test(BF16)
    assert not desk.watched.is_tested(BF16)
    assert not desk.checks(BF16)["loss_against_reference"].conclusive
    missing = desk.watched.missing(BF16)
    assert missing is not None
    assert (missing.holds, missing.value, missing.limit) == (False, 1, REFERENCE_SEEDS)


def test_what_needs_no_reference_misses_nothing(desk: Desk) -> None:
    assert desk.watched.is_tested(PLAIN)
    assert desk.watched.missing(PLAIN) is None
    assert desk.watched.runs_s(PLAIN, 1.0, 1.0, 1.0) == 0.0


def test_the_cost_is_of_a_probe_and_a_reference_within_their_limits(desk: Desk) -> None:
    assert desk.watched.runs_s(BF16, 0.1, 0.2, 1.0) == pytest.approx(STEPS * (0.1 + 0.2) + 2 * 1.0)
    assert desk.watched.runs_s(BF16, 9.0, 9.0, 1.0) == pytest.approx(
        2 * desk.budget.now.watched_run_s(0.0, 0.0) + 2 * 1.0
    )


def test_the_cost_is_of_two_more_references_once_the_probe_has_left_the_first(desk: Desk) -> None:
    desk.resume(as_told=above_references(0.08))
    desk.backend.interrupt_at = 3
    with pytest.raises(KeyboardInterrupt):
        desk.test(BF16)
    assert desk.watched.runs_s(BF16, 0.1, 0.2, 1.0) == pytest.approx(2 * (STEPS * 0.2 + 1.0))


@pytest.mark.parametrize("status", [TrialStatus.DIVERGED, TrialStatus.OOM, TrialStatus.CRASHED, TrialStatus.FAILED])
def test_a_probe_that_fails_ends_the_tests(desk: Desk, status: TrialStatus) -> None:
    desk.resume(failing(status, lambda config: not is_plain(config)))
    desk.test(BF16)
    assert desk.made() == [("reference", PLAIN, 0), ("probe", BF16, 0)]
    assert desk.watched.is_tested(BF16)
    assert desk.watched.missing(BF16) is None
    probe = desk.checks(BF16)["probe"]
    assert not probe.holds
    assert (probe.value, probe.limit, probe.detail) == (0, 1, f"simulated {status}")
    assert "loss_against_reference" not in desk.checks(BF16), "it is refused for what it died of"


def names(checks: dict[str, Check]) -> set[str]:
    return set(checks)


ALWAYS = {"finite_loss", "memory_headroom", "host_memory_headroom"}
OF_A_PROBE = {
    "probe",
    "finite_gradients",
    "first_gradient_cosine",
    "loss_rise",
    "loss_spikes",
    "loss_against_reference",
}


def test_the_gates_that_apply_are_the_gates_that_look(desk: Desk) -> None:
    assert names(desk.checks(PLAIN)) == ALWAYS | {"loss_rise"}
    assert names(desk.checks(PLAIN.replace(num_workers=2, prefetch_factor=2))) == ALWAYS | {"loss_rise", "shm_headroom"}
    larger = PLAIN.replace(grad_accum_steps=8)
    assert names(desk.checks(larger)) == ALWAYS | {"loss_rise", "loss_per_sample"}
    assert names(desk.checks(BF16)) == ALWAYS, "before its tests"
    desk.test(BF16)
    assert names(desk.checks(BF16)) == ALWAYS | OF_A_PROBE | {"gradient_underflow"}


def test_fp16_on_a_gpu_has_gates_of_its_own(desk: Desk) -> None:
    desk.resume(facts=cuda_facts()).test(FP16)
    fp16 = {"skipped_steps", "loss_scale", "fp16_range", "gradient_underflow", "allocator_retries"}
    assert names(desk.checks(FP16)) == ALWAYS | OF_A_PROBE | fp16


def test_the_specs_limits_reach_their_gates(desk: Desk) -> None:
    limits = {"loss_tolerance": 0.2, "memory_headroom": 0.3, "max_skipped_steps": 0.4, "soak_steps": STEPS}
    desk.resume(stability=limits, facts=cuda_facts()).test(FP16)
    checks = desk.checks(FP16.replace(num_workers=2, prefetch_factor=2, grad_accum_steps=4))
    assert {checks[name].limit for name in ("loss_against_reference",)} == {0.2}
    assert {checks[name].limit for name in ("memory_headroom", "host_memory_headroom", "shm_headroom")} == {0.3}
    assert checks["skipped_steps"].limit == 0.4
    assert desk.checks(PLAIN.replace(grad_accum_steps=8))["loss_per_sample"].limit == 0.2


def test_a_configuration_that_was_in_no_round_yet_is_not_refused_for_it(desk: Desk) -> None:
    """Another session has tested its arithmetic; how it learns per sample, the rounds are still to show."""
    larger = BF16.replace(grad_accum_steps=8)
    desk.test(larger)
    fed_otherwise = larger.replace(**LOADER)
    assert desk.watched.is_tested(fed_otherwise)
    checks = checks_of(desk.study, fed_otherwise, {}, {1: run(config=PLAIN)})
    assert [check.name for check in checks if not check.holds] == []


def departing(which: Callable[[TrainConfig], bool], factor: float = 1.6) -> Training:
    """The loss of watched runs goes its own way in their second half."""

    def training(request: TrialRequest, result: TrialResult) -> TrialResult:
        if not (request.watch_training and which(request.config)) or result.steps is None:
            return result
        half = len(result.steps.losses) // 2
        losses = [loss * (factor if step >= half else 1.0) for step, loss in enumerate(result.steps.losses)]
        return result.model_copy(update={"steps": result.steps.model_copy(update={"losses": losses})})

    return training


def test_a_probe_whose_loss_departs_fails_the_comparison(desk: Desk) -> None:
    desk.resume(as_told=departing(lambda config: not is_plain(config))).test(BF16)
    assert desk.checks(BF16)["probe"].passed
    check = desk.checks(BF16)["loss_against_reference"]
    assert not check.holds
    assert check.value == pytest.approx(0.6, abs=0.02)
    assert desk.watched.missing(BF16) is None


SEEDS_APART = (1.0, 1.02, 0.98, 1.01, 0.99)
"""What the losses of the references of each seed are multiplied by: the first three have a band of 18 %, all five one
of 8 %."""


def above_references(excess: float) -> Training:
    """The probe's loss lies above the references', which lie around that of its own seed."""

    def training(request: TrialRequest, result: TrialResult) -> TrialResult:
        assert result.steps is not None
        factor = SEEDS_APART[request.seed] if is_plain(request.config) else 1 + excess
        steps = result.steps.model_copy(update={"losses": [factor * loss for loss in result.steps.losses]})
        return result.model_copy(update={"steps": steps})

    return training


@pytest.mark.parametrize(
    ("excess", "references"),
    [
        pytest.param(0.04, 1, id="within the tolerance"),
        pytest.param(0.08, 3, id="less than half way to the limit"),
        pytest.param(0.12, 5, id="more than half way"),
        pytest.param(0.30, 5, id="beyond"),
    ],
)
def test_a_probe_in_doubt_is_compared_with_five_seeds(desk: Desk, excess: float, references: int) -> None:
    desk.resume(as_told=above_references(excess)).test(BF16)
    seeds = [seed for purpose, _, seed in desk.made() if purpose == "reference"]
    assert seeds == list(range(references))
    assert desk.watched.is_tested(BF16)


def test_five_seeds_only_within_the_tests_share_of_the_budget(desk: Desk) -> None:
    """Starts make four runs take so much of it that two more would not fit."""
    desk.resume(lambda _config: 400.0, as_told=above_references(0.12), budget="2m").test(BF16)
    assert len(desk.made()) == 4
    assert sum(record.result.wall_s for record in desk.ledger.records) < desk.budget.now.tests_s
    assert desk.watched.is_tested(BF16)
    assert desk.checks(BF16)["loss_against_reference"].conclusive


def test_the_two_seeds_more_may_refuse_what_three_would_have_let_pass(desk: Desk) -> None:
    """12 % is inside the band of the first three references, and outside that of all five."""
    desk.resume(as_told=above_references(0.12))
    desk.backend.interrupt_at = 5
    with pytest.raises(KeyboardInterrupt):
        desk.test(BF16)
    early = desk.checks(BF16)["loss_against_reference"]
    assert early.passed
    assert early.limit == pytest.approx(0.1775, abs=0.002)
    assert not desk.watched.is_tested(BF16), "it goes on in the next session"
    desk.resume(as_told=above_references(0.12)).test(BF16)
    late = desk.checks(BF16)["loss_against_reference"]
    assert not late.holds
    assert late.limit == pytest.approx(0.0778, abs=0.002)


def watched(probe: dict[str, Any], reference: dict[str, Any]) -> Training:
    """What the watched runs saw, of the seed of the probe; the other seeds' references saw nothing alike."""

    def training(request: TrialRequest, result: TrialResult) -> TrialResult:
        seen = (reference if is_plain(request.config) else probe) if request.seed == 0 else unlike
        return result.model_copy(update=seen)

    unlike = {"first_gradient": gradient([-1.0, 0.0], zero_share=0.9), "largest_activation": activation(9e9)}
    return training


def test_the_probe_is_held_against_the_reference_of_its_own_seed(desk: Desk) -> None:
    seen = {"first_gradient": gradient(), "largest_activation": activation(100.0)}
    desk.resume(facts=cuda_facts(), as_told=watched(seen, seen)).test(FP16)
    checks = desk.checks(FP16)
    assert all(checks[name].holds for name in ("gradient_underflow", "first_gradient_cosine", "fp16_range"))
    assert checks["first_gradient_cosine"].value == 1.0
    assert checks["fp16_range"].value == 100.0


def test_what_underflows_and_what_overflows_is_refused_before_it_trains_badly(desk: Desk) -> None:
    probe = {"first_gradient": gradient(zero_share=0.3), "largest_activation": activation(60_000.0)}
    reference = {"first_gradient": gradient(), "largest_activation": activation(70_000.0)}
    desk.resume(facts=cuda_facts(), as_told=watched(probe, reference)).test(FP16)
    checks = desk.checks(FP16)
    assert not checks["gradient_underflow"].holds
    assert not checks["fp16_range"].holds


def test_a_soak_is_asked_by_the_same_gates_under_names_of_its_own(desk: Desk) -> None:
    checks = soak_checks(desk.study, run([1.0] * STEPS))
    assert [check.name for check in checks] == ["soak", "soak_loss_spikes", "soak_memory_growth"]
    fp16 = soak_checks(desk.study, run([1.0] * STEPS, config=FP16))
    assert [check.name for check in fp16][3:] == ["soak_skipped_steps"]


def test_a_soak_that_broke_is_asked_for_nothing_else(desk: Desk) -> None:
    broken = run([1.0] * 3, failure=Failure(reason="the loss is nan at optimizer step 4"))
    check, *rest = soak_checks(desk.study, broken)
    assert not check.passed
    assert rest == []


# Whole searches.

SPACE = {
    "micro_batch_size": [32, 128],
    "num_workers": [0, 2],
    "prefetch_factor": 2,
    "compile": "none",
    "fused_optimizer": False,
    "num_threads": 4,
    "activation_checkpointing": False,
}


def ten_times_good_sense(config: TrainConfig) -> float:
    return 10 * good_sense(config)


def slow_learning(_config: TrainConfig, samples: int) -> float:
    return 2.3 / (1 + samples / 20_000)


def search(bench: Bench, training: Training, behaviour: Behaviour = ten_times_good_sense) -> Any:
    backend = bench.backend(behaviour, training=training, loss=slow_learning)
    return bench.search(backend, search=SPACE)


def probed(bench: Bench) -> list[TrainConfig]:
    return [record.result.config for record in bench.folder.read_trials() if record.purpose is Purpose.PROBE]


def test_the_fastest_is_emitted_once_it_has_passed_its_tests(bench: Bench) -> None:
    best = search(bench, lambda _request, result: result).best
    assert best["config"]["amp_dtype"] == "bf16"
    assert best["stability"]["verdict"] == "stable"
    checks = {check["name"]: check for check in best["stability"]["checks"]}
    assert {"loss_against_reference", "loss_rise", "soak"} <= checks.keys()
    assert checks["loss_against_reference"]["passed"]


def test_where_bf16_departs_the_fastest_sound_configuration_is_emitted(bench: Bench) -> None:
    best = search(bench, departing(lambda config: config.amp_dtype == "bf16")).best
    config = TrainConfig.from_dict(best["config"])
    assert probed(bench)[0].amp_dtype == "bf16", "it was the fastest"
    assert config.amp_dtype == "none"
    assert config.num_workers == 2
    assert config.micro_batch_size == 128
    assert best["speedup"]["ratio"] == pytest.approx(4**0.25 * 1.2, rel=0.1)
    assert best["stability"]["verdict"] == "stable"


def test_best_yaml_says_which_faster_configuration_was_refused_and_why(bench: Bench) -> None:
    search(bench, departing(lambda config: config.amp_dtype == "bf16"))
    document = yaml.safe_load(bench.folder.best.read_text())
    assert document["config"]["amp_dtype"] == "none"
    assert "bf16" in yaml.safe_dump(document["stability"])


def test_where_all_that_is_faster_departs_the_baseline_stands_and_says_so(bench: Bench) -> None:
    """Only other arithmetic is faster here, and all of it departs."""

    def only_arithmetic(config: TrainConfig) -> float:
        changes = (config.amp_dtype == "bf16") + (config.memory_format == "channels_last")
        return 1000.0 * (1 + 0.4 * changes)

    result = search(bench, departing(lambda config: not is_baseline_arithmetic(config)), only_arithmetic)
    assert result.best["config"] == result.best["baseline"]["config"]
    assert any("best.yaml keeps the baseline" in note for note in result.notes)
    assert "loss_against_reference" in yaml.safe_dump(result.best["stability"]), "what refused the others"


def is_baseline_arithmetic(config: TrainConfig) -> bool:
    return config.amp_dtype == "none" and config.memory_format == "contiguous"


def test_a_micro_batch_that_does_not_fit_when_watched_leaves_smaller_ones_their_chance(bench: Bench) -> None:
    """Out of memory is a fault of the size, not of bf16."""

    def training(request: TrialRequest, result: TrialResult) -> TrialResult:
        watched_bf16 = request.watch_training and request.config.amp_dtype == "bf16"
        if not watched_bf16 or request.config.micro_batch_size < 128:
            return result
        failure = Failure(reason="CUDA out of memory")
        return result.model_copy(update={"status": TrialStatus.OOM, "failure": failure, "steps": None, "blocks": ()})

    best = search(bench, training).best
    assert best["config"]["amp_dtype"] == "bf16"
    assert best["config"]["micro_batch_size"] == 32
    assert best["stability"]["verdict"] == "stable"


def test_a_reference_that_hangs_takes_no_rounds_from_the_confirmation(bench: Bench) -> None:
    hanging: list[TrainConfig] = []

    def training(request: TrialRequest, result: TrialResult) -> TrialResult:
        if not (request.watch_training and is_plain(request.config)):
            return result
        hanging.append(request.config)
        bench.clock.advance(20.0)
        failure = Failure(reason="no answer")
        return result.model_copy(
            update={"status": TrialStatus.TIMEOUT, "failure": failure, "steps": None, "blocks": ()}
        )

    best = search(bench, training).best
    assert len(hanging) == len(set(hanging))
    assert best["stability"]["verdict"] == "unconfirmed"
