"""Constraints: what they mean, and that nothing but a comparison of known figures is ever one."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autotune.config import KNOB_NAMES, TrainConfig
from autotune.spec.constraints import MAX_LENGTH, MEASURES, knob_values, parse_constraint

GIB = 2**30
CONFIG = TrainConfig(micro_batch_size=32, grad_accum_steps=4, amp_dtype="bf16")
VALUES: dict[str, Any] = knob_values(CONFIG) | {
    "peak_memory_bytes": 22 * GIB,
    "data_wait_fraction": 0.05,
    "first_step_s": 0.25,
    "energy_j_per_sample": None,
}
CUSTOM = {"impl": ("two-pass", "fast", None), "width": (1, 2.5)}


def violation(text: str, **values: Any) -> float:
    return parse_constraint(text, CUSTOM).violation(VALUES | {"impl": "fast", "width": 2.5} | values)


@pytest.mark.parametrize(
    "text",
    [
        "micro_batch_size * grad_accum_steps <= 1024",
        "effective_batch_size == 128",
        "peak_memory_bytes <= 22GiB",
        "peak_memory_bytes <= 22 GiB and num_workers < 1",
        "peak_memory_bytes > 23.6 GB",
        "data_wait_fraction <= 5%",
        "data_wait_fraction <= 2.5% * 2 and micro_batch_size % 32 == 0",
        "64 % micro_batch_size == 0",
        "first_step_s == 250ms",
        "first_step_s < 1s",
        "8 <= micro_batch_size <= 32",
        "40 >= micro_batch_size",
        "-micro_batch_size >= -32",
        "micro_batch_size // 3 == 10",
        "(micro_batch_size + 2) / 2 - 1 == 16",
        "amp_dtype == bf16",
        "amp_dtype == 'bf16'",
        'amp_dtype != "fp16"',
        "amp_dtype in [none, bf16]",
        "amp_dtype not in [fp16]",
        "micro_batch_size in [16, 32]",
        "compile != max-autotune",
        "compile in [none, reduce-overhead]",
        "compile == none",
        "pin_memory == false",
        "not pin_memory == true",
        "not (micro_batch_size > 32 or amp_dtype == none)",
        "micro_batch_size > 999 or num_workers == 0",
        "impl == fast",
        "impl != two-pass",
        "width >= 2.5",
    ],
)
def test_holds(text: str) -> None:
    assert violation(text) <= 0
    assert parse_constraint(text, CUSTOM).holds(VALUES | {"impl": "fast", "width": 2.5})


@pytest.mark.parametrize(
    "text",
    [
        "micro_batch_size < 32",
        "micro_batch_size != 32",
        "peak_memory_bytes <= 20GiB",
        "data_wait_fraction < 5%",
        "8 <= micro_batch_size <= 16",
        "amp_dtype == none",
        "amp_dtype in [fp16, none]",
        "amp_dtype not in [bf16]",
        "compile != none",
        "pin_memory == true",
        "not micro_batch_size == 32",
        "not (num_workers == 0 and micro_batch_size >= 8)",
        "num_workers == 0 and grad_accum_steps == 1",
        "micro_batch_size / num_workers < 99",
        "micro_batch_size % num_workers == 0",
        "impl == two-pass",
        "impl * 2 < 9",
        "impl < 3",
    ],
)
def test_is_violated(text: str) -> None:
    assert violation(text) > 0


@pytest.mark.parametrize(
    ("text", "how_far"),
    [
        ("peak_memory_bytes <= 20GiB", 0.1),
        ("20GiB >= peak_memory_bytes", 0.1),
        ("peak_memory_bytes <= 44GiB", -0.5),
        ("micro_batch_size >= 64", 0.5),
        ("micro_batch_size <= 0", 32.0),
        ("num_workers <= 0", 0.0),
        ("num_workers < 0", 1e-9),
        ("micro_batch_size == 64", 0.5),
        ("micro_batch_size == 32", 0.0),
        ("amp_dtype == fp16", 1.0),
        ("amp_dtype == bf16", -1.0),
        ("micro_batch_size in [1]", 1.0),
        ("micro_batch_size / num_workers < 9", 1.0),
        ("micro_batch_size <= 16 and grad_accum_steps <= 3", 1.0),
        ("micro_batch_size <= 16 or grad_accum_steps <= 3", 1 / 3),
        ("micro_batch_size <= 1e-300", 1e9),
    ],
)
def test_how_far_it_is_violated_is_relative_to_the_limit(text: str, how_far: float) -> None:
    assert violation(text) == pytest.approx(how_far)


@pytest.mark.parametrize("text", ["prefetch_factor >= 4", "prefetch_factor < 4", "prefetch_factor * 2 == 7"])
def test_a_comparison_with_what_is_absent_holds(text: str) -> None:
    assert violation(text) <= 0
    assert violation(f"not {text}") <= 0
    assert violation(f"{text} and micro_batch_size > 99") > 0
    assert violation("energy_j_per_sample <= 3") <= 0
    assert violation("step_time_s <= 3") <= 0, "before it was measured"
    assert violation("impl == two-pass", impl=None) <= 0


def test_absence_itself_can_be_asked_for() -> None:
    assert violation("prefetch_factor == none") <= 0
    assert violation("prefetch_factor != none") > 0
    assert violation("prefetch_factor in [none, 2]", prefetch_factor=2) <= 0
    assert violation("prefetch_factor not in [none, 2]") > 0
    assert violation("prefetch_factor == none", prefetch_factor=2) > 0
    assert violation("amp_dtype == none", amp_dtype="none") <= 0


def test_names_say_when_a_constraint_can_be_decided() -> None:
    constraint = parse_constraint("micro_batch_size * width <= 64 or impl == fast", CUSTOM)
    assert constraint.names == {"micro_batch_size", "width", "impl"}
    assert constraint.on_knobs
    assert constraint.text == "micro_batch_size * width <= 64 or impl == fast"
    assert not parse_constraint("micro_batch_size > 8 or step_time_s < 1").on_knobs
    assert all(not parse_constraint(f"{measure} < 1").on_knobs for measure in MEASURES)
    assert all(name in knob_values(CONFIG) for name in KNOB_NAMES)
    assert knob_values(CONFIG.with_values({"impl": "fast"}))["impl"] == "fast"


def test_the_sides_of_one_comparison_of_numbers() -> None:
    assert parse_constraint("peak_memory_bytes <= 20GiB").sides(VALUES) == (22 * GIB, 20 * GIB)
    assert parse_constraint("20GiB >= peak_memory_bytes").sides(VALUES) == (22 * GIB, 20 * GIB)
    assert parse_constraint("amp_dtype == bf16").sides(VALUES) is None
    assert parse_constraint("8 <= micro_batch_size <= 9").sides(VALUES) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("micro_batch <= 2", "unknown name 'micro_batch' at character 1; did you mean micro_batch_size?"),
        ("num_workers < 2 and amp_dtype == bf61", "at character 34; did you mean bf16?"),
        ("peak_memory_bytes <= 20gib", "unknown unit 'gib' at character 24; did you mean GiB?"),
        ("peak_memory_bytes <= 20 parsecs", "units are bytes"),
        ("micro_batch_size = 3", "write == for equality"),
        ("micro_batch_size ≤ 3", "write <="),
        ("micro_batch_size ** 2 < 9", "a power as a product"),
        ("micro_batch_size", "'micro_batch_size' alone compares nothing"),
        ("pin_memory", "pin_memory == true"),
        ("micro_batch_size + 1", "compares nothing"),
        ("1 < 2", "names no knob and no measure"),
        ("micro_batch_size < 3 and 1 < 2", "at character 26: this comparison names no knob"),
        ("true", "compares nothing"),
        ("num_workers == num_workers", "always the same"),
        ("amp_dtype < 3", "neither size nor order"),
        ("amp_dtype * 2 == 3", "neither size nor order"),
        ("amp_dtype == 'bf61'", "amp_dtype is one of none, bf16, fp16"),
        ("amp_dtype in [none, 'half']", "amp_dtype is one of"),
        ("micro_batch_size in 3", "a list of values is needed here"),
        ("micro_batch_size in []", "a list of values is needed here"),
        ("micro_batch_size in [num_workers]", "a list holds values only"),
        ("micro_batch_size <", "at its end"),
        ("(micro_batch_size < 3", "cannot be read"),
        ("(micro_batch_size < 3) + 1 < 3", "a comparison is not allowed here"),
        ("micro_batch_size < 9e999", "too large"),
        (f"micro_batch_size < {'9' * 400}", "too large"),
        ("micro_batch_size < 1e300GiB", "too large"),
        ("__import__('os') == 1", "a call, which a constraint cannot contain"),
        ("micro_batch_size.real < 3", "cannot read '.'"),
        ("micro_batch_size[0] < 3", "an index is not allowed here"),
        ("(lambda: 1) == micro_batch_size", "cannot read ':'"),
        ("f'{micro_batch_size}' == 'a'", "unknown name 'f'"),
        ("(x := 3) < micro_batch_size", "cannot read ':'"),
        ("micro_batch_size, num_workers", "compares nothing"),
        ("num_workers < 3 # and more", "cannot read '#'"),
        ("num_workers < '\\x41'", "a backslash"),
        ("ｎum_workers < 3", "unknown name"),
        ("num_workers < 3\0", "U+0000"),
        ("(" * 300 + "num_workers" + ")" * 150 + " < 3", "nested"),
        ("not " * 60 + "num_workers < 3", "nested too deeply"),
        ("-" * 100 + "num_workers < 3", "nested too deeply"),
        ("+".join(["1"] * 200) + " < num_workers", "nested too deeply"),
        ("num_workers < 3 " * 100, f"{MAX_LENGTH} are the most"),
    ],
)
def test_anything_else_is_an_error_that_says_what_to_mend(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_constraint(text)


WORDS = "micro_batch_size peak_memory_bytes impl bf16 none true and or not in if 1 0 20GiB 1e300 'a'"
SIGNS = "( ) [ ] , < <= == != + - * / // % ** ."
PIECES = st.sampled_from([*WORDS.split(), *SIGNS.split()])


@given(st.text(max_size=60) | st.lists(PIECES, max_size=14).map(" ".join))
@example("__import__('os').system('true')")
@example("9**9**9**9 < num_workers")
@example("\ud800 < num_workers")
@example("num_workers < 1 if True else 0")
def test_reading_raises_nothing_but_value_error_and_judging_nothing_at_all(text: str) -> None:
    try:
        constraint = parse_constraint(text, CUSTOM)
    except ValueError as error:
        assert str(error)
        return
    for values in (
        VALUES,
        {},
        dict.fromkeys(VALUES, 0),
        dict.fromkeys(VALUES, "text"),
        dict.fromkeys(VALUES, math.inf),
    ):
        found = constraint.violation(values)
        assert math.isfinite(found)
        assert constraint.holds(values) == (found <= 0)


@given(st.integers(0, 10**6), st.sampled_from([("KiB", 2**10), ("MiB", 2**20), ("GB", 10**9), ("bytes", 1)]))
def test_units_are_what_they_say(number: int, unit: tuple[str, int]) -> None:
    name, factor = unit
    constraint = parse_constraint(f"peak_memory_bytes == {number}{name}")
    assert constraint.holds({"peak_memory_bytes": number * factor})
    assert not constraint.holds({"peak_memory_bytes": number * factor + 1})
