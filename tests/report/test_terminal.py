"""What stands on the screen, drawn for a stream that is no terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from support.facts import cpu_facts, cuda_facts
from support.results import result as result_document
from support.screen import BASELINE, FAST, MIB, drawn, lines_of, progress, standing, text_of

from autotune.emitted import batch_change
from autotune.records import SearchResult
from autotune.report import words
from autotune.report.live import progress_view
from autotune.report.terminal import (
    best_view,
    facts_view,
    machine_view,
    replay_view,
    result_view,
    space_view,
)

MARKUP = ["[red]hot[/red]", "[/]", "[bold", "a[0]", "shape [32, 3]", "[link=x]y[/link]", r"\[red]"]
"""What rich would read as its own, eat, or stumble over."""


def document(**changes: Any) -> dict[str, Any]:
    """A `best.yaml`."""
    return {
        "format": 1,
        "study": "mine",
        "config": FAST.to_dict(),
        "effective_batch_size": 64,
        "measured": {"samples_per_s": 1412.0, "peak_memory_bytes": 600 * MIB, "bottleneck": "compute-bound: 91 %"},
        "baseline": {
            "config": BASELINE.to_dict(),
            "samples_per_s": 487.0,
            "peak_memory_bytes": 300 * MIB,
            "bottleneck": "loader-bound: 31 %",
        },
        "speedup": {"ratio": 2.9, "ci95": [2.85, 2.95]},
        "stability": {
            "verdict": "stable",
            "checks": [{"name": "soak", "passed": True, "value": 100.0, "limit": 100.0, "detail": ""}],
        },
        "search": {"trials": 38, "runs": 50, "elapsed_s": 588.0, "budget_s": 600.0, "training_s": 400.0},
        **changes,
    }


def result(*, dropped: Sequence[str] = (), notes: Sequence[str] = (), **changes: Any) -> SearchResult:
    return SearchResult(
        folder="studies/mine",
        best=document(**changes),
        facts=cpu_facts(),
        dropped=tuple(dropped),
        notes=tuple(notes),
    )


def test_no_colour_and_no_control_characters_where_there_is_no_terminal() -> None:
    views = [
        progress_view(progress(baseline=standing(BASELINE, 100), leaders=(standing(FAST, 250),))),
        result_view(result(dropped=["pin_memory: no accelerator"], notes=["a note"]), next_steps=["a step"]),
    ]
    assert not [character for view in views for character in drawn(view) if ord(character) < 32 and character != "\n"]


SETTINGS = [
    {
        "set": {"amp_dtype": "bf16"},
        "instead_of": {"amp_dtype": "none"},
        "gain": 0.62,
        "source": "measured",
        "kept": True,
    },
    {
        "set": {"num_workers": 4, "prefetch_factor": 2},
        "instead_of": {"num_workers": 0, "prefetch_factor": None},
        "gain": 0.054,
        "source": "model",
        "kept": True,
    },
    {"set": {"pin_memory": True}, "instead_of": {"pin_memory": False}, "gain": 0.002, "source": "model", "kept": False},
]
"""What each setting gains, as `best.yaml` states it."""


def test_each_setting_shows_what_it_gains_and_what_was_left_out() -> None:
    config = FAST.replace(amp_dtype="bf16", num_workers=4, prefetch_factor=2)
    shown = drawn(best_view(document(config=config.to_dict(), settings=SETTINGS))).splitlines()
    assert any(line.split() == ["amp_dtype", "bf16", "none", "+62", "%"] for line in shown), shown
    assert any(line.split() == ["num_workers", "4", "0", "+5.4", "%", "(model)"] for line in shown), shown
    assert any(line.split() == ["prefetch_factor", "2", "default", "with", "num_workers"] for line in shown), shown
    assert any("pin_memory true: +0.2 % (model), left at false" in line for line in shown), shown


def test_what_is_not_known_to_one_percent_is_said_to_be_so() -> None:
    open_ = {**SETTINGS[0], "known": False, "gain": 0.019, "ci95": [-0.0004, 0.0839]}
    asked = {**SETTINGS[0], "gain": None, "source": "spec", "ci95": None}
    config = FAST.replace(amp_dtype="bf16").to_dict()
    shown = [" ".join(drawn(best_view(document(config=config, settings=[entry]))).split()) for entry in (open_, asked)]
    assert "amp_dtype bf16 none not known to 1 % (+0.0 to +8.4)" in shown[0]
    assert "1.9" not in shown[0]
    assert "amp_dtype bf16 none as the spec asks" in shown[1]


def test_an_older_study_shows_no_gains() -> None:
    assert "gains" not in drawn(best_view(document())).split()


def test_a_terminal_that_wants_no_colour_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Console(file=StringIO(), width=100, force_terminal=True)
    screen.print(result_view(result()))
    codes = re.findall(r"\x1b\[([\d;]*)m", text_of(screen))
    assert {code for entry in codes for code in entry.split(";")} <= {"", "0", "1", "2"}, "bold and dim at the most"


def test_the_result_says_what_to_set_how_much_faster_and_what_it_costs() -> None:
    text = drawn(result_view(result(), next_steps=["set these in your training code"]))
    assert "mine: 2.90× (95 % interval 2.85 to 2.95) the baseline's throughput" in text
    assert "1,412 samples/s against 487" in text
    assert "verdict: stable: no instability seen, 100 steps in one go among them" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["micro_batch_size", "64", "32"] in rows
    assert ["amp_dtype", "bf16", "none"] in rows
    assert ["prefetch_factor", "2", "default"] in rows
    assert not [row for row in rows if row[:1] == ["memory_format"]], "what stays as it is needs no line"
    assert "memory 600 MiB at the peak, 2.00× the baseline's" in text
    assert "bottleneck: compute-bound: 91 %" in text
    assert "of the baseline: loader-bound: 31 %" in text
    assert "38 trials and 12 runs to repeat, confirm and test in 588 s of 600 s, 400 s of them training" in text
    assert text.rstrip().endswith("next:\n - set these in your training code")


def test_a_changed_effective_batch_stands_beside_the_speed_up_once() -> None:
    larger = {"config": BASELINE.replace(micro_batch_size=1024).to_dict()}
    change = batch_change(BASELINE.replace(micro_batch_size=1024), BASELINE) or ""
    noted = result(notes=[f"{change} Loss 1.2 against 1.3 at equal samples seen."], **larger)
    for view in (best_view(document(**larger)), result_view(result(**larger)), result_view(noted)):
        said = " ".join(drawn(view).split())
        assert said.count("The effective batch size changes from 32 to 1024") == 1
        assert "learning rate by 32 (SGD, linear)" in said
    assert "effective batch" not in drawn(best_view(document(config=BASELINE.replace(amp_dtype="bf16").to_dict())))


def test_the_result_lists_what_was_not_searched_and_what_to_know() -> None:
    text = drawn(
        result_view(result(dropped=["pin_memory: no accelerator", "tf32: CUDA only"], notes=["Mind the batch."]))
    )
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[lines.index("not searched:") :] == [
        "not searched:",
        " - pin_memory: no accelerator",
        " - tf32: CUDA only",
        "to know:",
        " - Mind the batch.",
    ]
    assert "next:" not in text


def test_a_line_of_a_listing_that_wraps_stays_indented() -> None:
    *_, first, second = drawn(result_view(result(notes=["word " * 30]))).splitlines()
    assert first.startswith(" - word")
    assert second.startswith("   word")


def test_a_result_without_confirmation_says_so() -> None:
    view = result_view(result(speedup={"ratio": 2.9, "ci95": None}, stability={"verdict": "unconfirmed", "checks": []}))
    text = drawn(view)
    assert "2.90× (not yet confirmed)" in text
    assert "verdict: unconfirmed\n" in text
    assert "no instability" not in text


def test_a_baseline_that_stands_claims_no_speed_up() -> None:
    text = drawn(best_view(document(config=BASELINE.to_dict(), speedup={"ratio": 1.0, "ci95": None})))
    assert "mine: the baseline stands" in text
    assert "\nnothing to change\n" in text
    assert "from" not in text.split()
    assert "×" not in text.splitlines()[0]


def test_a_baseline_whose_memory_nobody_saw_is_no_divisor() -> None:
    unseen = {**document()["baseline"], "peak_memory_bytes": 0}
    assert "memory 600 MiB at the peak\n" in drawn(best_view(document(baseline=unseen)))


def test_machine_and_workload() -> None:
    text = drawn(facts_view(cuda_facts(dataset_samples=None, input_shape=None)))
    assert "Test GPU (cuda), 80 GiB" in text
    assert "fast AMP    bf16, fp16" in text
    assert "4 usable cores" in text
    assert "1,000 parameters, BatchNorm" in text
    assert "unknown samples of no tensor" in text
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
        result_view(result(dropped=[text])),
        result_view(result(notes=[text])),
        result_view(result(), next_steps=[text]),
        result_view(result(study=text)),
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


def test_speed_ups_in_words() -> None:
    assert words.speedup(document()) == "2.90× (95 % interval 2.85 to 2.95)"
    assert words.speedup(document(speedup={"ratio": 1.504, "ci95": None})) == "1.50× (not yet confirmed)"


def test_a_result_says_what_was_predicted_and_believed() -> None:
    section = {
        "name": "auto",
        "predictions": 14,
        "median_error": 0.031,
        "within_interval": 0.93,
        "emitted": {
            "predicted": {"samples_per_s": 1390.0, "low": 1350.0, "high": 1430.0},
            "measured_samples_per_s": 1412.0,
        },
        "beliefs": ["amp_dtype bf16: with none 0.62× (0.58 to 0.66)"],
    }
    told = document()
    shown = " ".join(drawn(best_view(told | {"search": told["search"] | {"strategy": section}})).split())
    assert "predicted 1,390 (1,350 to 1,430), measured 1,412" in shown
    assert "over 14 trials it was off by 3.1 % (median), 93 % came out inside the interval" in shown
    assert "with none 0.62× (0.58 to 0.66)" in shown


def test_a_strategy_that_gave_up_says_why() -> None:
    section = {"name": "auto", "predictions": 0, "gave_up": "it explains 12 % of what sets the trials apart"}
    told = document()
    shown = drawn(best_view(told | {"search": told["search"] | {"strategy": section}}))
    assert "auto gave its model up: it explains 12 %" in shown


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


def test_what_a_result_says_is_no_markup_and_no_escape() -> None:
    odd = "[/b]\x1b]0;title\x07[link=file:///etc/passwd]x"
    told = result_document()
    told["config"]["custom"] = {"act": odd}
    told["search"]["strategy"] |= {"gave_up": odd}
    told["settings"][0] |= {"kept": False, "set": {"amp_dtype": odd}}
    shown = " ".join(drawn(best_view(told)).split())
    assert "\x1b" not in shown and "title" not in shown
    assert "[/b][link=file:///etc/passwd]x" in shown.replace(" ", "")


@pytest.mark.parametrize("value", ["NaN", "Infinity", 1e18])
def test_a_soak_whose_value_is_no_number_is_none(value: Any) -> None:
    told = result_document()
    told["stability"]["checks"] = [told["stability"]["checks"][0] | {"name": "soak", "value": value}]
    assert words.soaked(told) in (0, 10**18)
    assert drawn(best_view(told))


def test_predictions_alone_make_a_sentence() -> None:
    section = {"name": "auto", "predictions": 1, "median_error": 0.283, "within_interval": 1.0}
    assert words.predictions(section) == (
        "over 1 trial auto's predictions were off by 28.3 % (median), 100 % came out inside the interval"
    )
