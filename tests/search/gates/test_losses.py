"""Gates on the loss: what a fault does to it, and what chaos alone does.

The families of trajectories at the end are what the limit of `loss_against_reference` was measured with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from support.runs import run, without_steps

from autotune.records import Check, TrialResult
from autotune.search.gates import (
    loss_against_reference,
    loss_per_sample,
    loss_rise,
    loss_spikes,
    needs_other_seeds,
)

STEPS = 60
TOLERANCE = 0.05
Losses = np.ndarray


def learning(steps: int = STEPS, first: float = 2.3) -> Losses:
    """A loss that falls to a quarter."""
    return np.asarray(first / (1 + np.arange(steps) * 3 / steps))


def sound(seed: int, steps: int = STEPS, wide: float = 0.02) -> Losses:
    """One run of a training whose batches differ."""
    return learning(steps) * np.random.default_rng(seed).lognormal(0, wide, steps)


def references(*seeds: int, wide: float = 0.02) -> list[TrialResult]:
    return [run(list(sound(seed, wide=wide)), seed=seed) for seed in seeds or (0, 1, 2)]


def against(losses: Sequence[float] | Losses, others: Sequence[TrialResult] | None = None) -> Check:
    return loss_against_reference(run(list(losses)), others or references(), TOLERANCE)


def test_a_run_like_its_references_passes() -> None:
    check = against(sound(3))
    assert check.passed
    assert check.conclusive
    assert abs(check.value) < 0.02
    assert check.limit == TOLERANCE
    assert check.detail.endswith("60 steps")


def test_a_loss_that_departs_after_half_the_steps_fails() -> None:
    departing = sound(3)
    departing[30:] *= np.linspace(1.0, 1.5, 30)
    check = against(departing)
    assert not check.passed
    assert check.conclusive
    assert check.value == pytest.approx(0.38, abs=0.03)
    assert "in window 4 of 4, 60 steps" in check.detail


def test_a_loss_that_stands_still_fails() -> None:
    assert not against(np.full(STEPS, 2.3)).passed


def test_a_better_loss_passes_by_any_margin() -> None:
    check = against(sound(3) / 2)
    assert check.passed
    assert check.value == pytest.approx(-0.5, abs=0.03)


@pytest.mark.parametrize(("excess", "passes"), [(0.0499, True), (0.0501, False)])
def test_references_that_agree_leave_the_tolerance(excess: float, passes: bool) -> None:
    same = [run(list(learning()), seed=seed) for seed in range(3)]
    check = against(learning() * (1 + excess), same)
    assert check.passed is passes
    assert check.value == pytest.approx(excess)
    assert check.limit == TOLERANCE


def test_a_window_is_named_with_its_two_losses() -> None:
    flat = [run([1.0] * 12, seed=seed) for seed in range(3)]
    check = against([1.0] * 3 + [1.25] * 3 + [1.0] * 6, flat)
    assert not check.passed
    assert check.value == pytest.approx(0.25)
    assert check.detail == "loss 1.25 against 1 in window 2 of 4, 12 steps"


@pytest.mark.parametrize("offset", [0.006, 0.04, 0.3, 0.9])
def test_a_probe_near_the_reference_of_its_own_seed_passes_however_far_the_others_are(offset: float) -> None:
    """A seed whose weights begin badly is no fault of the configuration."""
    own, *others = [run(list(learning() * factor)) for factor in (1 + offset, 1 - offset / 2, 1 - offset / 2)]
    check = against(learning() * (1 + offset + 0.045), [own, *others])
    assert (check.passed, check.conclusive) == (True, True)
    assert check.value == pytest.approx(0.045)


def test_it_is_the_first_reference_that_has_the_seed_of_the_probe() -> None:
    """Near another one it fails like any that is too far from all: here the band is no wider than the tolerance."""
    own, *others = [run(list(learning() * factor)) for factor in (1.006, 0.997, 0.997)]
    probe = learning() * 1.051
    assert against(probe, [own, *others]).limit == TOLERANCE
    assert against(probe, [own, *others]).passed
    assert not against(probe, [*others, own]).passed


def test_luck_of_the_reference_of_its_own_seed_asks_no_more_than_the_mean_of_all() -> None:
    lucky = [run(list(learning() * factor)) for factor in (0.994, 1.003, 1.003)]
    check = against(learning() * 1.045, lucky)
    assert (check.passed, check.limit) == (True, TOLERANCE)
    assert check.value == pytest.approx(0.045)


def test_only_samples_that_all_have_seen_are_compared() -> None:
    longer = [*sound(3), *[9.0] * 20]
    assert against(longer).passed
    shorter = [run(list(sound(seed)[:40]), seed=seed) for seed in range(2)]
    check = against(sound(3), [*references(2), *shorter])
    assert check.passed
    assert check.detail.endswith("40 steps")


def test_steps_that_the_scaler_skipped_are_left_out() -> None:
    losses, skipped = [50.0, *sound(3)], [True] + [False] * STEPS
    assert loss_against_reference(run(losses, skipped=skipped), references(), TOLERANCE).passed


@pytest.mark.parametrize("step", [0, 20, 40, 59])
@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_fails_in_any_window(step: int, loss: float) -> None:
    broken = sound(3)
    broken[step] = loss
    assert not against(broken).passed


@pytest.mark.parametrize(
    ("probe", "others", "detail"),
    [
        (run([9.0] * 5), references(), "5 steps and 3 reference runs are too few to judge"),
        (run([9.0] * 60), references(0), "60 steps and 1 reference runs are too few to judge"),
        (without_steps(), references(), "0 steps and 3 reference runs are too few to judge"),
    ],
)
def test_too_few_steps_or_references_tell_nothing(probe: TrialResult, others: list[TrialResult], detail: str) -> None:
    check = loss_against_reference(probe, others, TOLERANCE)
    assert (check.passed, check.conclusive, check.detail) == (True, False, detail)
    assert check.limit == TOLERANCE


@pytest.mark.parametrize("change", [0.96, 1.0, 1.04])
def test_one_reference_is_enough_for_a_probe_that_follows_it(change: float) -> None:
    first, others = references()[0], references()[1:]
    alone = against(change * sound(0), [first])
    assert (alone.passed, alone.conclusive) == (True, True)
    assert not needs_other_seeds(run(list(change * sound(0))), first, TOLERANCE)
    assert against(change * sound(0), [first, *others]).passed, "as with any others"


@pytest.mark.parametrize("change", [0.9, 1.1])
def test_one_reference_decides_nothing_for_a_probe_that_leaves_it(change: float) -> None:
    first = references()[0]
    assert not against(change * sound(0), [first]).conclusive
    assert needs_other_seeds(run(list(change * sound(0))), first, TOLERANCE)


def test_other_seeds_say_nothing_where_the_steps_are_too_few() -> None:
    assert not needs_other_seeds(run([9.0] * 5), references()[0], TOLERANCE)


@pytest.mark.parametrize(("steps", "windows"), [(6, 2), (8, 2), (9, 3), (12, 4), (60, 4)])
def test_three_steps_make_a_window_and_four_windows_are_the_most(steps: int, windows: int) -> None:
    flat = [run([1.0] * steps, seed=seed) for seed in range(3)]
    check = against([1.0] * (steps - 3) + [1.5] * 3, flat)
    assert not check.passed
    assert f"in window {windows} of {windows}, {steps} steps" in check.detail


@pytest.mark.parametrize("factor", [1.6, 2.5])
def test_references_that_differ_widely_refuse_nothing_and_say_so(factor: float) -> None:
    wild = [run(list(learning() * each), seed=seed) for seed, each in enumerate([0.6, 1.0, 1.4])]
    check = against(learning() * factor, wild)
    assert check.limit > 2
    assert (check.passed, check.conclusive) == (True, False)
    assert "the reference runs differ so much that only an excess of" in check.detail


def test_a_probe_that_follows_the_reference_of_its_own_seed_passes_for_sure_however_wide_the_band() -> None:
    """The same weights, samples and random numbers: only arithmetic could have taken it away, and has not."""
    wild = [run(list(learning() * each), seed=seed) for seed, each in enumerate([1.0, 0.6, 1.4])]
    check = against(learning() * 1.04, wild)
    assert check.limit > 2
    assert (check.passed, check.conclusive) == (True, True)
    assert not against(learning() * 1.06, wild).conclusive


def test_what_is_beyond_even_a_wide_band_is_refused_for_sure() -> None:
    wild = [run(list(learning() * factor), seed=seed) for seed, factor in enumerate([0.8, 1.0, 1.2])]
    check = against(learning() * 40, wild)
    assert check.limit > 1
    assert (check.passed, check.conclusive) == (False, True)


# Chaos alone: families of runs that differ by their seed only.

Family = Callable[[np.random.Generator, float], Losses]
"""Four runs, one a row; the last steps of two runs differ by √2 × the spread."""
SPREADS = [0.02, 0.10, 0.30]
CHANCES = 300
ONE_IN_A_HUNDRED = 7
"""Of them: three, and four more that are luck in one of eighty tests."""


def drifting_apart(generator: np.random.Generator, spread: float) -> Losses:
    """Each step takes them a little further apart: a random walk of the logarithm."""
    walk = np.cumsum(generator.normal(0, spread / math.sqrt(STEPS), (4, STEPS)), axis=1)
    return batches(generator) * np.exp(walk)


def apart_for_good(generator: np.random.Generator, spread: float) -> Losses:
    """Each goes a way of its own, and keeps to it."""
    return batches(generator) * np.exp(generator.normal(0, spread, (4, 1)) * np.linspace(0, 1, STEPS))


def apart_in_the_end(generator: np.random.Generator, spread: float) -> Losses:
    """Chaos: differences double again and again, the last time in the last window."""
    growth = np.exp(5 * (np.linspace(0, 1, STEPS) - 1))
    return batches(generator) * np.exp(generator.normal(0, spread, (4, 1)) * growth)


def batches(generator: np.random.Generator) -> Losses:
    return learning() * generator.lognormal(0, 0.03, (4, STEPS))


FAMILIES: list[Family] = [drifting_apart, apart_for_good, apart_in_the_end]


def fourth_runs(family: Family, spread: float, excess: float = 0.0, chances: int = CHANCES) -> Iterator[Check]:
    """A fourth run against the other three, its loss in the last window larger by `excess`."""
    for seed in range(chances):
        losses = family(np.random.default_rng(seed), spread)
        losses[3, 45:] *= 1 + excess
        first, second, third, fourth = (run(list(each), seed=number) for number, each in enumerate(losses))
        yield loss_against_reference(fourth, [first, second, third], TOLERANCE)


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_one_exchangeable_run_in_a_hundred_is_refused_at_the_most(family: Family, spread: float) -> None:
    assert sum(not check.passed for check in fourth_runs(family, spread)) <= ONE_IN_A_HUNDRED


@pytest.mark.parametrize("family", FAMILIES)
def test_half_as_high_again_at_the_end_is_refused_where_seeds_differ_by_two_per_cent(family: Family) -> None:
    assert sum(not check.passed for check in fourth_runs(family, 0.02, excess=0.5, chances=100)) >= 99


@pytest.mark.parametrize("family", FAMILIES)
def test_where_a_loss_twice_as_high_would_pass_the_gate_says_that_it_cannot_tell(family: Family) -> None:
    checks = list(fourth_runs(family, 0.30, chances=100))
    lets_twice_pass = [check for check in checks if check.passed and check.limit > 1 and check.value > TOLERANCE]
    assert lets_twice_pass
    assert not any(check.conclusive for check in lets_twice_pass)
    assert all(check.conclusive for check in checks if check.limit <= 1 or not check.passed)


def test_losses_near_nought_are_held_against_what_there_was_to_learn() -> None:
    """All but learnt: a loss of 0.004 instead of 0.002 is twice as much, and nothing."""
    done = [run([*[2.0] * 15, *[0.002 + 0.0001 * seed] * 45], seed=seed) for seed in range(3)]
    check = against([*[2.0] * 15, *[0.004] * 45], done)
    assert check.passed
    assert check.value < 0.05
    assert not against([*[2.0] * 15, *[0.4] * 45], done).passed


# A changed effective batch size.


def per_sample(ours: Sequence[float], theirs: Sequence[float], tolerance: float = 0.05) -> Check:
    return loss_per_sample({1: run(ours)}, {1: run(theirs)}, tolerance)


def test_equal_losses_pass_and_a_worse_one_fails() -> None:
    assert per_sample([2.0, 1.0], [2.0, 1.0]).passed
    check = per_sample([2.0, 1.1], [2.0, 1.0])
    assert check.value == pytest.approx(0.1)
    assert check.limit == 0.05
    assert not check.passed
    assert per_sample([2.0, 1.1], [2.0, 1.0], 0.11).passed


def test_a_larger_batch_that_learns_better_passes_by_any_margin() -> None:
    check = per_sample([2.0, 0.2], [2.0, 1.0])
    assert check.passed
    assert check.value == pytest.approx(-0.8)


@pytest.mark.parametrize("first", [2.33, 2.31, 2.2, math.log(10)])
def test_where_the_baseline_learns_nothing_equal_losses_tell_nothing(first: float) -> None:
    """Random labels: after a few steps the loss is what guessing costs, whatever the batch size."""
    guessing = [2.8, 2.5, *[first] * 6, *[2.3] * 24]
    ours = [loss + 0.01 for loss in guessing]
    check = per_sample(ours, guessing)
    assert (check.passed, check.conclusive) == (True, False)
    assert "learns too little" in check.detail
    refused = per_sample([loss * 1.5 for loss in guessing], guessing)
    assert (refused.passed, refused.conclusive) == (False, True)


def test_where_the_baseline_learns_equal_losses_tell() -> None:
    assert per_sample(list(learning()), list(learning())).conclusive


def test_seeds_that_differ_more_than_the_baseline_learns_tell_nothing() -> None:
    theirs = {number: run([2.3, 2.3, loss, loss]) for number, loss in enumerate([1.2, 2.3, 2.2])}
    assert not loss_per_sample(theirs, theirs, 0.05).conclusive


def test_only_the_second_half_of_the_common_samples_counts() -> None:
    """Steps of 64 against 32: at 128 common samples, the second half is one step of ours and two of theirs."""
    ours = {1: run([9.0, 1.0, 50.0], samples=64)}
    theirs = {1: run([3.0, 3.0, 1.2, 0.8], samples=32)}
    check = loss_per_sample(ours, theirs, 0.05)
    assert check.value == pytest.approx(0.0)
    assert check.passed


def test_a_step_across_the_middle_counts_with_its_share() -> None:
    """Of 120 common samples the second half begins in the middle of the second step."""
    ours = {1: run([5.0, 2.0, 1.0], samples=40)}
    theirs = {1: run([1.0] * 3, samples=40)}
    assert loss_per_sample(ours, theirs, 1.0).value == pytest.approx((20 * 2.0 + 40 * 1.0) / 60 - 1)


def test_the_noise_between_seeds_widens_the_limit() -> None:
    theirs = {number: run([2.0, loss]) for number, loss in enumerate([0.8, 1.0, 1.2])}
    ours = {number: run([2.0, 1.3]) for number in theirs}
    check = loss_per_sample(ours, theirs, 0.05)
    assert check.limit >= 2 * 0.2 - 1e-9
    assert check.passed
    assert loss_per_sample(ours, theirs, 3.0).limit == 3.0


def test_only_rounds_that_both_have_run_are_compared() -> None:
    ours = {1: run([2.0, 1.0]), 2: run([2.0, 100.0])}
    theirs = {1: run([2.0, 1.0]), 3: run([2.0, 0.001])}
    check = loss_per_sample(ours, theirs, 0.05)
    assert check.passed
    assert check.detail == "1 against 1 at equal samples seen, 1 rounds"


@pytest.mark.parametrize(("ours", "theirs"), [({}, {}), ({1: run()}, {2: run()}), ({1: without_steps()}, {1: run()})])
def test_no_common_round_is_no_pass(ours: dict[int, TrialResult], theirs: dict[int, TrialResult]) -> None:
    check = loss_per_sample(ours, theirs, 0.05)
    assert not check.passed
    assert check.detail == "no common round"


def test_a_loss_that_is_not_a_number_never_passes() -> None:
    assert not per_sample([2.0, math.nan], [2.0, 1.0]).passed


# Training that goes astray by itself.


def test_a_learning_rate_a_hundred_times_too_high_fails() -> None:
    """The loss leaps to 40 times its first value, and stays."""
    check = loss_rise(run([2.3, *[92.0] * 39]))
    assert not check.passed
    assert check.conclusive
    assert check.value == pytest.approx(40.0)
    assert check.limit == 3.0
    assert check.detail == "from 2.3 to 92 in 40 steps, over 92"


def test_a_loss_that_climbs_without_end_fails() -> None:
    assert not loss_rise(run(list(2.3 * 1.1 ** np.arange(40)))).passed


def test_a_loss_that_falls_passes() -> None:
    check = loss_rise(run(list(learning())))
    assert check.passed
    assert check.value < 0.3


def test_an_overshoot_that_comes_down_again_passes() -> None:
    overshoot = 2.3 * (0.8 + 39 * np.exp(-np.arange(60) / 6))
    overshoot[0] = 2.3
    check = loss_rise(run(list(overshoot)))
    assert max(overshoot) > 30 * 2.3
    assert check.passed
    assert check.conclusive


def test_a_leap_that_falls_back_to_guessing_only_does_not() -> None:
    """ResNet-18 at a hundred times its learning rate, as it was seen: ten classes, so that guessing costs 2.3."""
    leap = [2.27, 18.6, 19.8, 10.39, 4.59, 2.89, 2.64, 2.42, 3.4, 3.05, 2.78, 3.39, 2.9]
    check = loss_rise(run(leap))
    assert not check.passed
    assert check.value == pytest.approx(19.8 / 2.27)
    assert "over 19.8" in check.detail


@pytest.mark.parametrize(("last", "passes"), [(6.0, True), (6.01, False)])
def test_three_times_the_first_loss_is_the_most(last: float, passes: bool) -> None:
    assert loss_rise(run([2.0, *[last] * 7])).passed is passes


def test_a_step_that_the_scaler_skipped_is_not_the_first() -> None:
    check = loss_rise(run([0.1, 2.0, 2.0, 2.0, 2.0], skipped=[True, False, False, False, False]))
    assert check.value == 1.0


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_fewer_than_four_steps_show_no_rise(steps: int) -> None:
    check = loss_rise(run([1.0, 99.0, 99.0][:steps]))
    assert (check.passed, check.conclusive) == (True, False)
    assert check.detail == f"{steps} steps are too few to judge"


@pytest.mark.parametrize("first", [0.0, -2.0])
def test_a_loss_that_does_not_begin_above_nought_has_no_ratio_to_judge(first: float) -> None:
    check = loss_rise(run([first, 1.0, 1.0, 1.0]))
    assert (check.passed, check.conclusive) == (True, False)


@pytest.mark.parametrize("where", [0, 39])
def test_a_rise_that_is_not_a_number_fails(where: int) -> None:
    losses = [2.3] * 40
    losses[where] = math.nan
    assert not loss_rise(run(losses)).passed


@pytest.mark.parametrize("wide", [0.3, 0.6, 1.0])
def test_a_lucky_first_batch_of_a_model_that_has_learnt_already_is_no_rise(wide: float) -> None:
    """Fine-tuning in small batches: losses that differ from step to step, and go nowhere."""
    flat = [run(list(np.random.default_rng(seed).lognormal(-2, wide, STEPS))) for seed in range(CHANCES)]
    assert sum(not loss_rise(each).passed for each in flat) <= ONE_IN_A_HUNDRED


def test_a_spike_warns_but_refuses_nothing() -> None:
    check = loss_spikes([run([2.0] * 20), run([2.0] * 20 + [30.0] + [2.0] * 5)])
    assert (check.passed, check.warns_only, check.holds) == (False, True, True)
    assert (check.value, check.limit) == (15.0, 10.0)


@pytest.mark.parametrize(("spike", "passes"), [(20.0, True), (20.1, False)])
def test_ten_times_the_median_is_no_spike_yet(spike: float, passes: bool) -> None:
    assert loss_spikes([run([2.0] * 20 + [spike])]).passed is passes


def test_a_noisy_loss_is_no_spike() -> None:
    check = loss_spikes([run(list(sound(seed, wide=0.5))) for seed in range(20)])
    assert check.passed
    assert check.conclusive


def test_a_spike_is_held_against_the_steps_right_before_it() -> None:
    """A loss that has fallen a hundredfold leaps back to where it began."""
    assert not loss_spikes([run([5.0] * 20 + [0.05] * 20 + [5.0])]).passed


def test_four_steps_have_no_past_to_leap_from() -> None:
    check = loss_spikes([run([0.1, 0.1, 0.1, 99.0])])
    assert (check.passed, check.conclusive) == (True, False)
    assert not loss_spikes([]).conclusive
