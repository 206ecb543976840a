"""What stands on the screen, drawn for a stream that is no terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.facts import cpu_facts, cuda_facts
from support.results import result as result_document
from support.screen import BASELINE, FAST, MIB, drawn, lines_of, progress, standing

from autotune.report import words
from autotune.report.live import progress_view
from autotune.report.result import result_view
from autotune.report.terminal import (
    facts_view,
    machine_view,
    replay_view,
    space_view,
)

FOLDER = Path("studies/mine")
MARKUP = ["[red]hot[/red]", "[/]", "[bold", "a[0]", "shape [32, 3]", "[link=x]y[/link]", r"\[red]"]
"""What rich would read as its own, eat, or stumble over."""


def test_no_colour_and_no_control_characters_where_there_is_no_terminal() -> None:
    views = [
        progress_view(progress(baseline=standing(BASELINE, 100), leaders=(standing(FAST, 250),))),
        result_view(result_document(), folder=FOLDER, notes=["a note", "another"], next_steps=["a step"], verbose=True),
    ]
    assert not [character for view in views for character in drawn(view) if ord(character) < 32 and character != "\n"]


def test_machine_and_workload() -> None:
    text = drawn(facts_view(cuda_facts(dataset_samples=None, input_shape=None)))
    assert "Test GPU (cuda), 80 GiB" in text
    assert "fast AMP    bf16, fp16" in text
    assert "4 usable cores" in text
    assert "1,000 parameters, BatchNorm" in text
    assert "a stream of samples of unknown shape" in text
    assert "10,000 samples of 3 × 64 × 64" in drawn(facts_view(cpu_facts()))


def test_what_a_machine_lacks_is_named() -> None:
    facts = cpu_facts()
    device = facts.device.model_copy(update={"amp_dtypes": (), "compile_refusal": "no C++ compiler"})
    text = drawn(machine_view(device, facts.host))
    assert "fast AMP    none" in text
    assert "compile     no C++ compiler" in text


def test_the_space() -> None:
    rows = [("micro_batch_size", "8, 16", "32"), ("amp_dtype", "none, bf16", "none")]
    text = drawn(space_view(rows, "24", ["pin_memory: no accelerator"]))
    assert "24 configurations" in text
    assert ["amp_dtype", "none,", "bf16", "none"] in [line.split() for line in text.splitlines()]
    assert "not searched:\n - pin_memory: no accelerator" in text
    assert "not searched" not in drawn(space_view(rows, "24", []))


@pytest.mark.parametrize("text", MARKUP)
def test_brackets_in_what_a_workload_says_come_out_literally(text: str) -> None:
    """Reasons, messages and names are other people's words."""
    views = [
        progress_view(progress(message=f"trial 0: failed: {text}")),
        progress_view(progress(study=text)),
        result_view(result_document(), folder=FOLDER, notes=[text]),
        result_view(result_document(), folder=FOLDER, notes=["why", text]),
        result_view(result_document(), folder=FOLDER, next_steps=[text]),
        result_view(result_document() | {"study": text}, folder=FOLDER),
        space_view([("amp_dtype", text, "none")], "3", []),
        space_view([("amp_dtype", "none", "none")], "3", [text]),
        machine_view(cpu_facts().device.model_copy(update={"name": text, "compile_refusal": text}), cpu_facts().host),
    ]
    for view in views:
        assert text in drawn(view)
    assert any(text in line for line in lines_of(progress(message=f"trial 0: failed: {text}")))


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (258_576_384, "247 MiB"),
        (1536 * MIB, "1.5 GiB"),
        (80 << 30, "80 GiB"),
        (1020 << 30, "1020 GiB"),
        (5 << 40, "5 TiB"),
        (5000 << 40, "5000 TiB"),
    ],
)
def test_memory_in_words(count: int, text: str) -> None:
    assert words.memory(count) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(1412.3, "1,412"), (100.4, "100"), (99.96, "100"), (8.254, "8.25"), (0.0312, "0.0312"), (0, "0")]
)
def test_rates_in_words(rate: float, text: str) -> None:
    assert words.rate(rate) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "default"), (True, "true"), (False, "false"), (8, "8"), ("bf16", "bf16")]
)
def test_settings_as_yaml_writes_them(value: Any, text: str) -> None:
    assert words.setting(value) == text


def test_values_that_are_held_back_are_said_to_be() -> None:
    assert words.values((False, True)) == "false, true"
    assert words.values((0, 2, 8, 16), (8, 16)) == "0, 2; 8, 16 if loading waits"


def test_changes_from_the_baseline() -> None:
    config = BASELINE.replace(micro_batch_size=16, pin_memory=True)
    assert words.changes(config, BASELINE) == "micro_batch_size 16, pin_memory true"
    assert words.changes(BASELINE, BASELINE) == "the baseline"


def test_strategies_against_a_table_are_a_row_each() -> None:
    figures = {
        "seconds_to_2pct": {"median": 9.4, "p90": None, "reached": 0.86},
        "trials_to_2pct": {"median": 5, "p90": None, "reached": 0.86},
        "found_over_best": {"median": 1.0, "p10": 0.991},
        "oom_trials": {"median": 0.5, "max": 2},
        "score": 0.81,
    }
    document = {"table": "vit", "crew": {"workers": 1}, "strategies": {"auto": figures, "gp": figures}}
    shown = drawn(replay_view([document]))
    first, second = shown.splitlines()[1:3]
    assert first.split() == [
        "vit",
        "auto",
        "86",
        "%",
        "9",
        "–",
        "5",
        "1.000",
        "0.991",
        "0.5,",
        "at",
        "most",
        "2",
        "0.81",
    ]
    assert second.split()[0] == "gp"


def test_a_crew_shows_what_its_controller_has_to_do() -> None:
    nothing = {"median": None, "p90": None, "reached": 0.0}
    figures = {
        "seconds_to_2pct": nothing,
        "trials_to_2pct": nothing,
        "found_over_best": {"median": 0.9, "p10": 0.8},
        "oom_trials": {"median": 0, "max": 0},
        "score": None,
        "controller_share": {"median": 0.142},
    }
    shown = drawn(replay_view([{"table": "vit", "crew": {"workers": 8}, "strategies": {"auto": figures}}]))
    heading, row = shown.splitlines()[:2]
    assert heading.split()[-1] == "ask+tell"
    assert row.split()[-2:] == ["14", "%"]
