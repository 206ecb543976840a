"""The stability tests in real processes: each fault is found by the gate that is there for it; sound training passes.

fp16 runs on the CPU here, slowly, with a GradScaler of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import unstable

from autotune.config import TrainConfig
from autotune.execution import LocalBackend
from autotune.records import Check, Facts, Purpose, TrialRecord, TrialRequest
from autotune.search import build_space
from autotune.search.budget import BudgetNow
from autotune.search.decide.checks import checks_of, soak_checks
from autotune.search.decide.study import StudySoFar
from autotune.search.decide.watched import Watched
from autotune.search.gates import loss_rise
from autotune.spec import parse_spec

pytestmark = pytest.mark.slow

WORKLOAD = Path(__file__).parent / "workload"
STEPS = 60
SPEC: dict[str, Any] = {
    "model": {"factory": "unstable:build_model"},
    "data": {"factory": "unstable:build_data"},
    "training": {
        "loss": "unstable:scaled_cross_entropy",
        "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9},
    },
    "search": {
        "custom": {
            "kind": {"values": list(unstable.MODELS), "arg": "model.args.kind"},
        }
    },
    "stability": {"soak_steps": STEPS},
    "budget": "20m",
    "device": "cpu",
}


def plain(kind: str = "Sound", amp_dtype: str = "none") -> TrainConfig:
    return TrainConfig(micro_batch_size=16, num_threads=1).with_values({"kind": kind, "amp_dtype": amp_dtype})


@dataclass
class Laboratory:
    """Runs in real processes, without a search around them."""

    backend: LocalBackend
    facts: Facts
    records: list[TrialRecord] = field(default_factory=list)

    @property
    def study(self) -> StudySoFar:
        spec = parse_spec(SPEC, WORKLOAD)
        return StudySoFar(
            spec=spec,
            facts=self.facts,
            space=build_space(spec, self.facts),
            budget=BudgetNow(total_s=spec.budget),
            records=tuple(self.records),
        )

    def run(self, request: TrialRequest, purpose: Purpose, *, deadline_s: float) -> TrialRecord:
        result = self.backend.run(request, deadline_s=deadline_s, on_event=lambda _event: None)
        record = TrialRecord(
            number=len(self.records),
            purpose=purpose,
            elapsed_s=0.0,
            started="",
            result=result,
            environment=self.facts,
        )
        self.records.append(record)
        return record

    def checks(self, config: TrainConfig) -> dict[str, Check]:
        while (test := Watched(self.study).next_run(config)) is not None:
            self.run(test.request, test.purpose, deadline_s=test.deadline_s)
        return {check.name: check for check in checks_of(self.study, config, {}, {0: self.records[0].result})}

    def soak_checks(self, config: TrainConfig) -> dict[str, Check]:
        request = TrialRequest(config=config, seed=0, time_limit_s=0.0, min_steps=STEPS)
        result = self.run(request, Purpose.SOAK, deadline_s=60).result
        return {check.name: check for check in soak_checks(self.study, result)}


@pytest.fixture(scope="module")
def backend() -> Iterator[LocalBackend]:
    backend = LocalBackend(SPEC, WORKLOAD)
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def facts(backend: LocalBackend) -> Facts:
    return backend.facts(60)


@pytest.fixture
def laboratory(backend: LocalBackend, facts: Facts) -> Laboratory:
    return Laboratory(backend, facts)


def failed(checks: dict[str, Check]) -> set[str]:
    return {name for name, check in checks.items() if not check.holds}


@pytest.mark.parametrize("amp_dtype", ["bf16", "fp16"])
def test_sound_training_passes_every_gate(laboratory: Laboratory, amp_dtype: str) -> None:
    sound = plain(amp_dtype=amp_dtype)
    checks = laboratory.checks(sound)
    assert failed(checks) == set()
    assert checks["first_gradient_cosine"].value > 0.999
    assert checks["loss_against_reference"].conclusive
    assert str(STEPS) in checks["loss_against_reference"].detail
    assert failed(laboratory.soak_checks(sound)) == set()
    seeds = [record.result.seed for record in laboratory.records if record.purpose is Purpose.REFERENCE]
    assert seeds == [0], "it follows the reference of its own seed: others would change nothing"


def test_an_activation_beyond_fp16s_range_is_found_where_it_is(laboratory: Laboratory) -> None:
    checks = laboratory.checks(plain("Wide", amp_dtype="fp16"))
    assert not checks["fp16_range"].passed
    assert "scale_up" in checks["fp16_range"].detail


def test_the_same_activation_is_no_fault_in_bf16(laboratory: Laboratory) -> None:
    assert failed(laboratory.checks(plain("Wide", amp_dtype="bf16"))) == set()


def test_a_loss_that_diverges_late_and_in_low_precision_only_is_found(laboratory: Laboratory) -> None:
    checks = laboratory.checks(plain("DivergesLate", amp_dtype="bf16"))
    assert "loss_against_reference" in failed(checks)
    assert checks["first_gradient_cosine"].passed


def test_a_learning_rate_far_too_high_is_found_in_plain_arithmetic_too(laboratory: Laboratory) -> None:
    request = TrialRequest(config=plain("Wild"), seed=0, time_limit_s=2.0)
    result = laboratory.run(request, Purpose.BASELINE, deadline_s=30).result
    rise = loss_rise(result)
    assert result.status == "diverged" or not rise.passed, rise


def test_gradients_that_underflow_are_found(laboratory: Laboratory) -> None:
    checks = laboratory.checks(plain("Minute", amp_dtype="fp16"))
    assert "gradient_underflow" in failed(checks)
    assert checks["gradient_underflow"].value > 0.3


def test_a_model_that_leaks_is_found(laboratory: Laboratory) -> None:
    growth = laboratory.soak_checks(plain("Leaks"))["soak_memory_growth"]
    assert not growth.passed
    assert 0.8 * 2**20 < growth.value < 1.5 * 2**20


def test_a_scaler_that_skips_every_third_step_is_found(laboratory: Laboratory) -> None:
    checks = laboratory.checks(plain("OverflowsEveryThirdStep", amp_dtype="fp16"))
    assert "skipped_steps" in failed(checks)
    assert checks["skipped_steps"].value == pytest.approx(1 / 3, abs=0.05)
