"""Custom knobs in real trials: the factories and the optimizer receive what was tuned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autotune.config import KnobValue, TrainConfig
from autotune.execution import LocalBackend
from autotune.records import TrialRequest, TrialResult, TrialStatus

pytestmark = pytest.mark.slow

WORKLOAD = Path(__file__).parent / "workload"
SPEC: dict[str, Any] = {
    "model": {"factory": "tunable:build_model", "args": {"block": {"norm": 1}}},
    "data": {"factory": "tunable:build_data"},
    "training": {"loss": "tunable:loss"},
    "budget": "1m",
    "device": "cpu",
    "search": {
        "custom": {
            "impl": {"values": ["one", "two", "three"], "arg": "model.args.impl"},
            "extra": {"values": [0, 0.5], "arg": "model.args.block.extra"},
            "value": {"values": [0, 10], "arg": "data.args.value"},
            "foreach": {"values": [None, True], "arg": "training.optimizer.foreach"},
        }
    },
}
BASELINE: dict[str, KnobValue] = {"impl": "one", "extra": 0, "value": 0, "foreach": None}


@pytest.fixture(scope="module")
def backend() -> Iterator[LocalBackend]:
    backend = LocalBackend(SPEC, WORKLOAD)
    facts = backend.facts(60)
    assert facts.workload.parameters == 1, "built as the baseline, though the spec itself lacks an argument"
    yield backend
    backend.close()


def run(backend: LocalBackend, **values: KnobValue) -> TrialResult:
    config = TrainConfig(micro_batch_size=4).with_values({**BASELINE, **values})
    request = TrialRequest(config=config, seed=0, time_limit_s=0.2, max_blocks=3)
    result = backend.run(request, deadline_s=30.0, on_event=lambda _event: None)
    assert result.config == config
    return result


@pytest.mark.parametrize(
    ("values", "loss"),
    [({}, 1.0), ({"impl": "two"}, 2.0), ({"extra": 0.5, "impl": "two", "value": 10}, 12.5), ({"foreach": True}, 1.0)],
)
def test_factories_receive_the_tuned_arguments(
    backend: LocalBackend, values: dict[str, KnobValue], loss: float
) -> None:
    result = run(backend, **values)
    assert result.status is TrialStatus.OK, result.failure
    assert result.steps is not None
    assert set(result.steps.losses) == {loss}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"impl": "three"}, ["model.factory: tunable:build_model raised KeyError", 'impl "three"']),
        ({"nobody": 1}, ["the spec has no knob nobody"]),
    ],
)
def test_what_fails_with_a_value_is_an_outcome_that_names_the_knob(
    backend: LocalBackend, values: dict[str, KnobValue], said: list[str]
) -> None:
    result = run(backend, **values)
    assert result.status is TrialStatus.FAILED
    assert result.failure is not None
    for words in said:
        assert words in result.failure.reason
