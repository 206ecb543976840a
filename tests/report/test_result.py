"""The end of a search on the screen: what it says, in which order, and that it is one screen."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.results import result
from support.screen import BASELINE, FAST, MIB, console, text_of

from autotune.emitted import batch_change
from autotune.export import TARGETS
from autotune.report import words
from autotune.report.result import result_view

_STABLE = {"verdict": "stable", "checks": [{"name": "soak", "passed": True, "value": 100.0, "limit": 100.0}]}
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


def document(**changes: Any) -> dict[str, Any]:
    """A `best.yaml` of a search that found something."""
    found = result()
    found["measured"] |= {"samples_per_s": 1412.0, "peak_memory_bytes": 600 * MIB}
    found["baseline"] |= {"samples_per_s": 487.0, "peak_memory_bytes": 300 * MIB}
    found["search"] |= {"trials": 38, "runs": 50, "elapsed_s": 588.0, "budget_s": 600.0, "training_s": 400.0}
    found |= {"settings": [], "stability": _STABLE, "config": FAST.to_dict()}
    return found | {"speedup": {"ratio": 2.9, "ci95": [2.85, 2.95], "outcome": "faster"}} | changes


def kept(**changes: Any) -> dict[str, Any]:
    """A `best.yaml` of a search that keeps the baseline."""
    nothing = {"ratio": 1.0, "ci95": None, "outcome": "tie"}
    return document(config=BASELINE.to_dict(), speedup=nothing, **changes)


def drawn(told: dict[str, Any], **options: Any) -> str:
    options.setdefault("folder", Path("studies/mine"))
    screen = console()
    screen.print(result_view(told, **options))
    return text_of(screen)


def flat(told: dict[str, Any], **options: Any) -> str:
    return " ".join(drawn(told, **options).split())


def test_it_answers_in_order() -> None:
    measured = document()["measured"] | {"energy_j_per_sample": 0.3}
    before = document()["baseline"] | {"energy_j_per_sample": 0.6}
    text = flat(document(measured=measured, baseline=before, settings=SETTINGS), notes=["Mind the batch."])
    expected = [
        "mine: 2.90× as fast as your baseline (95 % interval 2.85 to 2.95)",
        "1,412 samples/s instead of 487. Stable: no instability seen, 100 steps in a row.",
        "change from to worth",
        "micro_batch_size 32 64",
        "prefetch_factor default 2",
        "limit the step is the limit: 160 samples/s; the loader could deliver 900",
        "next a faster device or a smaller model; a longer search would gain 1.0 % on average",
        "memory 600 MiB at the peak, 2.00× the baseline's",
        "energy 0.3 J per sample, 0.50× the baseline's",
        "search 38 trials and 12 runs to confirm and test in 9m48s of 10m",
        "note Mind the batch.",
        'use autotune.load("studies/mine") in your Python code',
        "autotune export mine --to FORMAT accelerate, deepspeed,",
        "more autotune show -v mine",
    ]
    places = [text.find(part) for part in expected]
    assert -1 not in places, expected[places.index(-1)]
    assert places == sorted(places)
    assert "memory_format" not in text, "what stays as it is needs no line"


SAME_BATCH = FAST.replace(micro_batch_size=16, grad_accum_steps=2, amp_dtype="bf16", num_workers=4)


@pytest.mark.parametrize(
    "told", [document(settings=SETTINGS, config=SAME_BATCH.to_dict()), kept()], ids=["faster", "kept"]
)
def test_it_is_one_screen(told: dict[str, Any]) -> None:
    screen = Console(file=StringIO(), width=80)
    screen.print(result_view(told, folder=Path("studies/mine"), notes=["A note. " * 15]))
    lines = text_of(screen).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_every_export_is_named_and_explained_on_demand() -> None:
    short, long = flat(document()), flat(document(), verbose=True)
    assert f"autotune export mine --to FORMAT {', '.join(TARGETS)} " in short
    for name, target in TARGETS.items():
        assert f"- {name}: {target.gives}" in long
        assert target.gives not in short
    assert "autotune export elsewhere/mine --to" in drawn(document(), folder=Path("elsewhere/mine"))


def test_a_command_that_wraps_loses_nothing() -> None:
    folder = Path("/somewhere/deep") / ("a-long-name-" * 12)
    assert f"show-v{folder}" in "".join(drawn(document(), folder=folder).split())


def test_what_was_not_searched_is_shown_on_demand() -> None:
    told = document()
    told["search"]["not_searched"] = ["pin_memory: no accelerator", "tf32: CUDA only"]
    assert "pin_memory" not in drawn(told)
    assert "not searched: - pin_memory: no accelerator - tf32: CUDA only" in flat(told, verbose=True)


def test_only_the_first_notes_are_shown_without_asking() -> None:
    notes = [f"Note {number}." for number in range(5)]
    assert "note Note 2. note 2 more: autotune show -v mine" in flat(document(), notes=notes)
    assert "note Note 4." in flat(document(), notes=notes, verbose=True)
    assert "note Note 4." in flat(document(notes=notes), verbose=True), "those of best.yaml"


def test_the_first_note_explains_a_result_that_is_not_confirmed() -> None:
    told = document(speedup={"ratio": 2.9, "ci95": None}, stability={"verdict": "unconfirmed", "checks": []})
    told["config"] |= {"micro_batch_size": 32}
    text = flat(told, notes=["Not confirmed: no time."])
    assert "mine: 2.90× as fast as your baseline (not yet confirmed)" in text
    assert "instead of 487. Not confirmed: no time. change" in text
    assert "no instability" not in text


def test_a_baseline_that_is_kept_claims_no_speed_up() -> None:
    text = drawn(kept(), notes=["No configuration was faster."])
    assert text.splitlines()[0] == "mine: keep your current settings: nothing tested was reliably faster"
    assert "\nNo configuration was faster.\n" in text
    assert "×" not in text and "change" not in text and "export" not in text
    unsure = {"verdict": "unconfirmed", "checks": []}
    assert drawn(kept(stability=unsure)).splitlines()[0] == "mine: keep your current settings for now"


def test_a_baseline_whose_memory_nobody_saw_is_no_divisor() -> None:
    unseen = {**document()["baseline"], "peak_memory_bytes": 0}
    assert re.search("600 MiB at the peak *\n", drawn(document(baseline=unseen)))


def test_each_setting_shows_what_it_is_worth_and_what_was_left_as_before() -> None:
    config = FAST.replace(amp_dtype="bf16", num_workers=4, prefetch_factor=2)
    told = document(config=config.to_dict(), settings=SETTINGS)
    shown = [line.split() for line in drawn(told).splitlines()]
    assert ["amp_dtype", "none", "bf16", "+62", "%"] in shown
    assert ["num_workers", "0", "4", "+5.4", "%", "(expected)"] in shown
    assert ["prefetch_factor", "default", "2", "with", "num_workers"] in shown
    assert "Tried, no clear gain: pin_memory." in drawn(told)
    assert "pin_memory true: +0.2 % (expected), left at false" in drawn(told, verbose=True)
    more = {**SETTINGS[-1], "set": {"num_workers": 8}, "instead_of": {"num_workers": 4}, "gain": 0.0, "kept": False}
    text = drawn(document(config=config.to_dict(), settings=[*SETTINGS, more]))
    assert "Tried, no clear gain: pin_memory, num_workers 8." in text


def test_a_gain_that_is_not_known_is_unclear() -> None:
    open_ = {**SETTINGS[0], "known": False, "gain": 0.019, "ci95": [-0.0004, 0.0839]}
    asked = {**SETTINGS[0], "gain": None, "source": "spec", "ci95": None}
    config = FAST.replace(amp_dtype="bf16").to_dict()
    shown = [flat(document(config=config, settings=[entry])) for entry in (open_, asked)]
    assert "amp_dtype none bf16 unclear (+0.0 to +8.4 %)" in shown[0]
    assert "1.9" not in shown[0]
    assert "amp_dtype none bf16 set by the spec" in shown[1]


def test_a_study_without_gains_shows_no_column_of_them() -> None:
    assert "worth" not in drawn(document()).split()


def test_a_terminal_that_wants_no_colour_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Console(file=StringIO(), width=100, force_terminal=True)
    screen.print(result_view(document(), folder=Path("studies/mine")))
    codes = re.findall(r"\x1b\[([\d;]*)m", text_of(screen))
    assert {code for entry in codes for code in entry.split(";")} <= {"", "0", "1", "2"}, "bold and dim at the most"


def test_a_line_of_a_listing_that_wraps_stays_indented() -> None:
    *_, first, second = drawn(document(), next_steps=["word " * 30]).splitlines()
    assert first.startswith(" - word")
    assert second.startswith("   word")


def test_speed_ups_in_words() -> None:
    assert words.speedup(document()) == "2.90× (95 % interval 2.85 to 2.95)"
    assert words.speedup(document(speedup={"ratio": 1.504, "ci95": None})) == "1.50× (not yet confirmed)"


PREDICTED = {
    "name": "auto",
    "predictions": 14,
    "median_error": 0.031,
    "within_interval": 0.93,
    "emitted": {
        "predicted": {"samples_per_s": 1390.0, "low": 1350.0, "high": 1430.0},
        "measured_samples_per_s": 1412.0,
    },
}


def test_how_good_predictions_were_is_shown_on_demand() -> None:
    told = document(search=document()["search"] | {"strategy": PREDICTED})
    assert "predicted" not in drawn(told)
    shown = flat(told, verbose=True)
    assert "auto predicted 1,390 (1,350 to 1,430) and measured 1,412; its 14 predictions were off by 3.1 %" in shown
    assert "13 of the measured values were inside the predicted 95 % interval." in shown
    alone = {key: value for key, value in PREDICTED.items() if key != "emitted"}
    assert words.predictions(alone).startswith("auto's 14 predictions were off by 3.1 % (median)")


def test_a_few_predictions_say_nothing_about_how_good_they_are() -> None:
    assert words.predictions(PREDICTED | {"predictions": 4}) == ""
    assert words.predictions({}) == ""


def test_a_strategy_that_gave_up_says_why() -> None:
    section = {"name": "auto", "predictions": 0, "gave_up": "it explains 12 % of the differences between trials"}
    shown = flat(document(search=document()["search"] | {"strategy": section}), verbose=True)
    assert "auto stopped using its model: it explains 12 %" in shown


def test_what_a_longer_search_would_bring() -> None:
    assert words.left_to_gain({"strategy": {"left_to_gain": 0.038}}) == "a longer search would gain 3.8 % on average"
    assert words.left_to_gain({"strategy": {"left_to_gain": 0.001}}) == "a longer search would hardly help"
    assert words.left_to_gain({"strategy": {}}) == ""


def test_what_a_result_says_is_no_markup_and_no_escape() -> None:
    odd = "[/b]\x1b]0;title\x07[link=file:///etc/passwd]x"
    told = result()
    told["config"]["custom"] = {"act": odd}
    told["search"]["strategy"] |= {"gave_up": odd}
    told["search"]["not_searched"] = told["notes"] = [odd, odd]
    told["settings"][0] |= {"kept": False, "set": {"amp_dtype": odd}}
    shown = flat(told, verbose=True)
    assert "\x1b" not in shown and "title" not in shown
    assert "[/b][link=file:///etc/passwd]x" in shown.replace(" ", "")


@pytest.mark.parametrize("value", ["NaN", "Infinity", 1e18])
def test_a_soak_whose_value_is_no_number_is_none(value: Any) -> None:
    told = result()
    told["stability"]["checks"] = [told["stability"]["checks"][0] | {"name": "soak", "value": value}]
    assert words.soaked(told) in (0, 10**18)
    assert drawn(told)


def test_a_changed_effective_batch_stands_beside_the_speed_up_once() -> None:
    config = BASELINE.replace(micro_batch_size=1024)
    change = batch_change(config, BASELINE) or ""
    for notes in ([], [f"{change} Loss 1.2 against 1.3 at equal samples seen."]):
        told = " ".join(drawn(document(config=config.to_dict()), notes=notes).split())
        assert told.count("The effective batch size changes from 32 to 1024") == 1
        assert told.index("effective batch") < told.index("change from to")
        assert ("Loss 1.2" in told) is bool(notes)
    assert "effective batch" not in drawn(document(config=BASELINE.replace(amp_dtype="bf16").to_dict()))
