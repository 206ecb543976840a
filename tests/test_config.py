"""One point of the space: its knobs, those of the spec's own among them, as plain values and back."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from autotune.config import KNOB_NAMES, RANK_KNOBS, KnobValue, TrainConfig
from autotune.records import TrialRequest, TrialResult, TrialStatus

TUNED = TrainConfig(micro_batch_size=64, custom=(("width", 1.0), ("act", "relu"), ("bias", None)))
TOGETHER = TrainConfig(world_size=4, grad_accum_steps=2, data_parallel="ddp", bucket_cap_mb=25)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9)
)


def test_custom_knobs_are_ordered_by_name_however_they_were_given() -> None:
    shuffled = TrainConfig(micro_batch_size=64, custom=(("bias", None), ("act", "relu"), ("width", 1.0)))
    assert shuffled == TUNED
    assert len({shuffled, TUNED}) == 1
    assert [name for name, _ in TUNED.custom] == ["act", "bias", "width"]


def test_without_custom_knobs_nothing_is_written_of_them() -> None:
    assert tuple(TrainConfig().to_dict()) == tuple(name for name in KNOB_NAMES if name not in RANK_KNOBS)
    assert "custom" not in TrainConfig().canonical_json()
    assert TUNED.to_dict()["custom"] == {"act": "relu", "bias": None, "width": 1.0}


def test_plain_values_and_back() -> None:
    for config in (TrainConfig(), TUNED, TOGETHER):
        assert TrainConfig.from_dict(config.to_dict()) == config
        assert TrainConfig.from_dict(json.loads(config.canonical_json())) == config


def test_an_unknown_knob_is_no_configuration() -> None:
    with pytest.raises(ValueError, match="widht is not a key that this version knows"):
        TrainConfig.from_dict({"widht": 1})


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"num_threads": "1; touch P"}, "num_threads must be a whole number, not '1; touch P'"),
        ({"micro_batch_size": 0}, "micro_batch_size must be at least 1, not 0"),
        ({"micro_batch_size": True}, "micro_batch_size must be a whole number, not True"),
        ({"micro_batch_size": 2.0}, "micro_batch_size must be a whole number, not 2.0"),
        ({"num_workers": 2**31}, "num_workers must be at most 2147483647, not 2147483648"),
        ({"amp_dtype": "int8"}, "amp_dtype must be 'none', 'bf16' or 'fp16', not 'int8'"),
        ({"pin_memory": 1}, "pin_memory must be true or false, not 1"),
        ({"custom": {"a b": 1}}, "custom.a b.[key] must look like"),
        ({"custom": {"a": [1]}}, "custom.a must be a number, text, true, false or null, not a list"),
        ({"custom": {"a": float("nan")}}, "custom.a must be a finite number"),
        ({"a\nb": 1}, "'a\\nb' is not a key that this version knows"),
        ([1], "must be a mapping, not a list"),
    ],
)
def test_values_from_anywhere_are_checked(values: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)) as caught:
        TrainConfig.from_dict(values)
    assert len(str(caught.value).splitlines()) == 1
    record = {"status": "ok", "seed": 0, "wall_s": 1.0, "config": values}
    with pytest.raises(ValidationError):
        TrialResult.model_validate_json(json.dumps(record))


def test_a_difference_in_a_custom_knob_goes_by_its_own_name() -> None:
    other = TUNED.with_values({"act": "gelu", "num_workers": 2})
    assert TUNED.differences(other) == {"num_workers": (0, 2), "act": ("relu", "gelu")}
    assert TUNED.differences(TrainConfig(micro_batch_size=64)) == {"act": ("relu", None), "width": (1.0, None)}


def test_values_by_name() -> None:
    assert TUNED.value("micro_batch_size") == 64
    assert TUNED.value("act") == "relu"
    assert TUNED.value("bias") is None
    with pytest.raises(KeyError):
        TUNED.value("nobody")


def test_setting_by_name_keeps_the_rest() -> None:
    changed = TUNED.with_values({"width": 2, "pin_memory": True})
    assert changed.pin_memory is True
    assert dict(changed.custom) == {"act": "relu", "bias": None, "width": 2}
    assert TUNED.with_values({}) == TUNED == TUNED.replace()


@given(st.dictionaries(st.from_regex(r"[a-z]{1,6}_x", fullmatch=True), VALUES, max_size=4))
def test_records_carry_custom_knobs_through_json(values: dict[str, KnobValue]) -> None:
    config = TrainConfig().with_values(values)
    request = TrialRequest(config=config, seed=0, time_limit_s=1.0)
    back = TrialRequest.model_validate_json(request.model_dump_json())
    assert back == request
    assert [type(value) for _, value in back.config.custom] == [type(value) for _, value in config.custom]
    assert ("custom" in request.model_dump()["config"]) == bool(values)


def test_a_result_keeps_them_as_best_yaml_does() -> None:
    result = TrialResult(config=TUNED, status=TrialStatus.OK, seed=0, wall_s=1.0)
    plain = json.loads(result.model_dump_json())
    assert plain["config"] == TUNED.to_dict()
    assert TrialResult.model_validate(plain) == result


def test_processes_that_train_together_multiply_the_batch() -> None:
    assert TOGETHER.device_batch_size == 64
    assert TOGETHER.effective_batch_size == 256
    assert TOGETHER.to_dict()["world_size"] == 4
    assert TOGETHER.to_dict()["bucket_cap_mb"] == 25
