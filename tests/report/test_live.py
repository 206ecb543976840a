"""What stands on the screen while a study runs."""

from __future__ import annotations

import re
from io import BytesIO, StringIO, TextIOWrapper
from types import SimpleNamespace

import pytest
from rich.console import Console
from support.screen import BASELINE, FAST, drawn, lines_of, progress, standing, text_of
from support.simulation import Clock

from autotune.config import TrainConfig
from autotune.records import Phase, Predicted, Purpose, Running, TrialStatus
from autotune.report import live
from autotune.report.live import Screen, Sparkline, progress_view


def test_progress_names_the_study_its_phase_and_the_time_left() -> None:
    text = drawn(progress_view(progress()))
    assert "mine: searching" in text
    assert "1m30s of 2m left" in text


def test_a_budget_that_is_spent_has_nothing_left() -> None:
    assert "0s of 2m left" in drawn(progress_view(progress(elapsed_s=125.0)))


def test_the_clock_runs_on_between_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "1m20s of 2m left" in drawn(progress_view(progress(), age_s=10))
    clock = Clock()
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=clock))
    show = Screen(Console(file=StringIO(), force_terminal=True))
    assert "starting PyTorch" in drawn(show._view())
    show(progress())
    clock.advance(15)
    assert "1m15s of 2m left" in drawn(show._view())


def test_a_long_name_leaves_room_for_the_time_left() -> None:
    screen = Console(file=StringIO(), width=80)
    screen.print(progress_view(progress(study="a-study-with-a-very-long-name", phase=Phase.CONFIRMING)))
    assert "a-study-with-a-v: confirming" in text_of(screen).splitlines()[0]
    assert "1m30s of 2m left" in text_of(screen).splitlines()[0]


def test_progress_shows_the_trial_that_runs() -> None:
    running = Running(config=FAST, purpose=Purpose.SEED, since_s=1.0)
    baseline = standing(BASELINE, 100)
    text = " ".join(drawn(progress_view(progress(running=(running,), baseline=baseline))).split())
    changes = "micro_batch_size 64, amp_dtype bf16, num_workers 2, prefetch_factor 2"
    assert f"trying a first guess: {changes}" in text
    assert "warming up, 29 s" in text
    running = running.model_copy(update={"samples_per_s": 151.6, "samples_per_s_ci95": (140.0, 160.0)})
    assert "152 samples/s (140 to 160)" in drawn(progress_view(progress(running=(running,), baseline=baseline)))


def test_progress_before_there_is_a_baseline() -> None:
    running = Running(config=BASELINE, purpose=Purpose.BASELINE, since_s=1.0)
    text = drawn(progress_view(progress(running=(running,))))
    assert "measuring the baseline, to compare everything else with" in text
    assert "choosing the next configuration" in drawn(progress_view(progress()))


def test_the_leaders_stand_above_the_baseline_with_their_speed_up() -> None:
    view = progress_view(
        progress(
            baseline=standing(BASELINE, 100),
            leaders=(standing(FAST, 250), standing(TrainConfig(amp_dtype="bf16"), 120)),
            by_status={TrialStatus.OK: 3, TrialStatus.OOM: 1},
        )
    )
    lines = [line.split() for line in drawn(view).splitlines()]
    assert [line[:2] for line in lines[-3:]] == [["250", "2.50×"], ["120", "1.20×"], ["100", "1.00×"]]
    assert lines[-3][2:4] == ["512", "MiB"]
    assert lines[-1][4:] == ["the", "baseline"]
    assert ["3", "ok,", "1", "oom"] in lines


def test_a_baseline_among_the_leaders_stands_once() -> None:
    view = progress_view(progress(baseline=standing(BASELINE, 100), leaders=(standing(BASELINE, 100),)))
    assert drawn(view).count("1.00×") == 1


def test_without_a_terminal_each_outcome_is_a_plain_line() -> None:
    first, *lines = lines_of(
        progress(running=(Running(config=BASELINE, purpose=Purpose.BASELINE, since_s=1.0),)),
        progress(
            message="trial 0: 100 samples/s", baseline=standing(BASELINE, 100), leaders=(standing(BASELINE, 100),)
        ),
        progress(
            message="trial 1: oom: killed by signal 9",
            elapsed_s=101.27,
            baseline=standing(BASELINE, 100),
            leaders=(standing(FAST, 250),),
        ),
    )
    assert first.startswith("starting PyTorch")
    assert lines == [
        "  30.0 s  searching  trial 0: 100 samples/s  best 100/s, 1.00x the baseline",
        " 101.3 s  searching  trial 1: oom: killed by signal 9  best 250/s, 2.50x the baseline",
    ]


def test_a_long_line_is_not_folded() -> None:
    message = "trial 3: failed: RuntimeError: " + "x" * 300
    assert len(lines_of(progress(message=message))) == 2


def test_quiet_says_nothing() -> None:
    assert lines_of(progress(message="trial 0: 100 samples/s"), quiet=True) == []


def test_a_live_view_leaves_the_terminal_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor comes back, on Ctrl-C as well."""
    monkeypatch.setenv("TERM", "xterm")
    screen = Console(file=StringIO(), width=100, force_terminal=True)
    with pytest.raises(KeyboardInterrupt), Screen(screen) as show:
        show(progress(message="trial 0"))
        raise KeyboardInterrupt
    text = text_of(screen)
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_it_says_why_a_trial_runs_and_what_is_expected_of_it() -> None:
    running = Running(
        config=TrainConfig(amp_dtype="bf16", micro_batch_size=256),
        purpose=Purpose.SEARCH,
        since_s=1.0,
        predicted=Predicted(samples_per_s=1390.0, low=1290.0, high=1500.0),
    )
    text = drawn(progress_view(progress(running=(running,), baseline=standing(BASELINE, 100))))
    assert "probing micro_batch_size 256, amp_dtype bf16: predicted 1,390/s (1,290 to 1,500)" in text


@pytest.mark.parametrize("purpose", list(Purpose))
def test_every_purpose_has_its_words(purpose: Purpose) -> None:
    running = Running(config=FAST, purpose=purpose, since_s=1.0, round=3)
    text = " ".join(drawn(progress_view(progress(running=(running,), baseline=standing(BASELINE, 100)))).split())
    assert "amp_dtype bf16" in text
    assert "round 3" in text


def test_the_best_so_far_rises_from_the_baseline_in_blocks() -> None:
    text = drawn(progress_view(progress(baseline=standing(BASELINE, 100), best_so_far=(100, 100, 160, 240))))
    assert "best 2.40× the baseline ▁▁▄█" in re.sub(" +", " ", text)


def test_a_sparkline_of_many_trials_ends_with_the_latest() -> None:
    line = drawn(Sparkline([1.0] * 500 + [2.0])).strip()
    assert len(line) == 40
    assert line[-1] == "█"
    assert set(line[:-1]) == {"▁"}


def test_nothing_gained_is_a_flat_line() -> None:
    assert drawn(Sparkline([1.0, 1.0])).strip() == "▁▁"


def test_a_terminal_without_blocks_gets_ascii() -> None:
    screen = Console(file=TextIOWrapper(BytesIO(), encoding="ascii"), width=80)
    screen.print(Sparkline([1.0, 2.0]))
    screen.file.seek(0)
    assert screen.file.read().strip() == "_#"
