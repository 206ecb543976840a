"""How often the words are right: two configurations take turns on a simulated machine until `is_decided`."""

from __future__ import annotations

import math
import statistics
from collections import Counter

import numpy as np
import pytest
from scipy.stats import mstats, ttest_1samp
from support.blocks import Machine, Values
from support.comparisons import FASTER, MACHINES, RIGHT_WORD, SAME, SLOWER, comparisons, said_to_differ, words

from autotune.stats import Comparison, Interval, Outcome, compare, is_decided
from autotune.stats.compare import FEWEST_PAIRS

MIRRORED = {
    Outcome.FASTER: Outcome.SLOWER,
    Outcome.SLOWER: Outcome.FASTER,
    Outcome.TIE: Outcome.TIE,
    Outcome.AMBIGUOUS: Outcome.AMBIGUOUS,
}


def assert_right(found: Counter[Outcome], ratio: float) -> None:
    assert found[RIGHT_WORD[ratio]] >= 0.95 * found.total(), found
    if ratio == SAME:
        assert said_to_differ(found) <= 0.03, found


def interval_of(comparison: Comparison) -> Interval:
    assert comparison.ratio.interval is not None
    return comparison.ratio.interval


class TestShares:
    """How simulated comparisons end. `benchmarks/comparison_shares.py` makes more of them, on more machines."""

    @pytest.mark.parametrize(
        ("machine", "ratio"),
        [
            ("1 %", SAME),
            ("1 %", FASTER),
            ("1 %", SLOWER),
            ("2 %", SAME),
            ("3 %", SAME),
            ("3 %", SLOWER),
            ("drift", FASTER),
            ("spikes", SAME),
        ],
    )
    def test_the_word_is_right_in_95_of_100(self, machine: str, ratio: float) -> None:
        assert_right(words(MACHINES[machine], ratio, 100), ratio)

    @pytest.mark.slow
    def test_5_percent_of_noise_hardly_ever_makes_a_difference(self) -> None:
        """Some remain ambiguous after 100 rounds; what may not be is a word that is false."""
        found = words(MACHINES["5 %"], SAME, 500)
        assert said_to_differ(found) <= 0.05, found

    @pytest.mark.parametrize(("machine", "ratio"), [("1 %", 1.02), ("3 %", 1.03)])
    def test_to_stop_when_it_is_clear_does_not_spoil_the_interval(self, machine: str, ratio: float) -> None:
        """A comparison ends on a lucky streak rather than on another: the interval has to hold the truth even so."""
        intervals = [interval_of(comparison) for comparison in comparisons(MACHINES[machine], ratio, 100)]
        assert statistics.fmean(interval.low <= ratio <= interval.high for interval in intervals) >= 0.93

    def test_a_quiet_machine_needs_few_rounds(self) -> None:
        for ratio in (SAME, FASTER, SLOWER):
            pairs = [comparison.pairs for comparison in comparisons(MACHINES["calm"], ratio, 20)]
            assert statistics.fmean(pairs) <= 8

    def test_the_simulated_machine_is_as_noisy_as_it_says(self) -> None:
        steady = Machine(restarts=0.02, spiked=0.0)
        ratios = list(steady.log_ratios(np.random.default_rng(0), FASTER, rounds=1000))
        assert statistics.fmean(ratios) == pytest.approx(math.log(FASTER), abs=0.004)
        assert 1.0 <= statistics.stdev(ratios) / (math.sqrt(2) * 0.02) <= 1.5


def noisy_ratios(count: int, mean: float, spread: float, seed: int) -> Values:
    return np.random.default_rng([seed, count]).normal(mean, spread, count)


class TestWords:
    @pytest.mark.parametrize(
        ("ratio", "word"),
        [
            (2.0, Outcome.FASTER),
            (1.011, Outcome.FASTER),
            (1.009, Outcome.TIE),
            (1 / 1.009, Outcome.TIE),
            (1 / 1.011, Outcome.SLOWER),
            (0.5, Outcome.SLOWER),
        ],
    )
    def test_beyond_doubt_but_only_over_one_percent_is_a_difference(self, ratio: float, word: Outcome) -> None:
        """Of few pairs, too few to say of any ratio that it is near 1 for sure."""
        log_ratios = [math.log(ratio) + step for step in (-1e-5, 0.0, 1e-5)]
        assert compare(log_ratios).outcome is word

    @pytest.mark.parametrize(
        ("ratio", "word"), [(1.03, Outcome.FASTER), (1.02, Outcome.TIE), (1.0, Outcome.TIE), (1 / 1.03, Outcome.SLOWER)]
    )
    def test_what_is_nearer_to_1_than_to_5_percent_for_sure_is_a_tie(self, ratio: float, word: Outcome) -> None:
        log_ratios = math.log(ratio) + np.linspace(-0.0005, 0.0005, 8)
        assert compare(log_ratios).outcome is word
        assert is_decided(log_ratios)

    def test_noise_that_hides_5_percent_is_ambiguous(self) -> None:
        log_ratios = [-0.1, 0.1, -0.08, 0.07, 0.02, -0.03]
        assert compare(log_ratios).outcome is Outcome.AMBIGUOUS
        assert not is_decided(log_ratios)

    def test_one_round_has_a_ratio_and_no_word(self) -> None:
        comparison = compare([math.log(2)])
        assert comparison.ratio.value == pytest.approx(2)
        assert comparison.ratio.interval is None
        assert (comparison.outcome, comparison.pairs) == (Outcome.AMBIGUOUS, 1)

    @pytest.mark.parametrize("ratio", [1.0, 1.05, 2.0, 0.5])
    def test_fewer_than_the_fewest_pairs_never_decide(self, ratio: float) -> None:
        assert not any(is_decided([math.log(ratio)] * count) for count in range(1, FEWEST_PAIRS))
        assert is_decided([math.log(ratio)] * FEWEST_PAIRS)

    def test_one_pair_that_other_work_spoiled_does_not_matter(self) -> None:
        log_ratios = [*noisy_ratios(9, math.log(1.05), 0.003, seed=0), math.log(0.6)]
        comparison = compare(log_ratios)
        assert comparison.outcome is Outcome.FASTER
        assert comparison.ratio.value == pytest.approx(1.05, abs=0.004)

    def test_a_decision_stands_in_what_is_said_of_it(self) -> None:
        """Never decided and ambiguous."""
        sets = [noisy_ratios(5 + seed % 25, 0.03, 0.03, seed) for seed in range(200)]
        decided = [compare(log_ratios).outcome for log_ratios in sets if is_decided(log_ratios)]
        assert len(decided) > 20
        assert Outcome.AMBIGUOUS not in decided

    def test_the_other_way_round_it_says_the_opposite(self) -> None:
        for seed in range(300):
            log_ratios = noisy_ratios(2 + seed % 38, 0.02, 0.04, seed)
            there, back = compare(log_ratios), compare(-log_ratios)
            assert back.outcome is MIRRORED[there.outcome], (seed, there, back)
            assert back.ratio.value * there.ratio.value == pytest.approx(1)
            assert interval_of(back).low * interval_of(there).high == pytest.approx(1)
            assert is_decided(log_ratios) == is_decided(-log_ratios)

    def test_it_is_the_middle_of_the_pairs_and_the_order_of_rounds_is_nothing_to_it(self) -> None:
        log_ratios = list(noisy_ratios(12, 0.05, 0.03, seed=0))
        assert compare(log_ratios) == compare(log_ratios[::-1])
        assert compare(log_ratios).pairs == 12


class TestIntervals:
    """Against those that SciPy computes."""

    @pytest.mark.parametrize("pairs", [5, 7, 12, 25])
    @pytest.mark.parametrize("comparisons", [1, 3])
    def test_it_is_that_of_the_trimmed_mean_at_98_percent(self, pairs: int, comparisons: int) -> None:
        log_ratios = noisy_ratios(pairs, 0.05, 0.02, seed=1)
        left_out = pairs // 5 / pairs
        low, high = mstats.trimmed_mean_ci(log_ratios, limits=(left_out, left_out), alpha=0.02 / comparisons)
        interval = interval_of(compare(log_ratios, comparisons=comparisons))
        assert (math.log(interval.low), math.log(interval.high)) == pytest.approx((low, high), rel=1e-9)

    @pytest.mark.parametrize("pairs", [2, 3, 4])
    def test_of_few_pairs_it_is_students_of_the_mean(self, pairs: int) -> None:
        log_ratios = noisy_ratios(pairs, 0.05, 0.02, seed=1)
        students = ttest_1samp(log_ratios, 0.0).confidence_interval(0.98)
        interval = interval_of(compare(log_ratios))
        assert (math.log(interval.low), math.log(interval.high)) == pytest.approx(tuple(students), rel=1e-9)


class TestSeveralAtOnce:
    def test_widens_the_intervals_around_the_same_figure(self) -> None:
        log_ratios = noisy_ratios(9, 0.05, 0.02, seed=0)
        found = [compare(log_ratios, comparisons=count) for count in (1, 2, 3, 10)]
        assert len({comparison.ratio.value for comparison in found}) == 1
        widths = [interval_of(comparison).high / interval_of(comparison).low for comparison in found]
        assert widths == sorted(set(widths))

    def test_decides_later(self) -> None:
        """Never sooner; and for some number of pairs, of one but not of ten."""
        sets = [noisy_ratios(5 + seed % 20, 0.1, 0.04, seed) for seed in range(100)]
        one = [is_decided(log_ratios) for log_ratios in sets]
        ten = [is_decided(log_ratios, comparisons=10) for log_ratios in sets]
        assert all(alone or not among_ten for alone, among_ten in zip(one, ten, strict=True))
        assert 0 < sum(ten) < sum(one)

    def test_they_hold_together_in_95_of_100(self) -> None:
        """Three against one baseline, whose noise they share."""
        truths = [0.4, 0.3, 0.0]

        def all_hold(seed: int) -> bool:
            runs = np.random.default_rng(seed).normal(0, 0.03, (4, 4))
            logs = [truth + runs[:, number] - runs[:, 3] for number, truth in enumerate(truths)]
            intervals = [interval_of(compare(log_ratios, comparisons=3)) for log_ratios in logs]
            return all(i.low <= math.exp(truth) <= i.high for i, truth in zip(intervals, truths, strict=True))

        assert statistics.fmean(all_hold(seed) for seed in range(300)) >= 0.94
