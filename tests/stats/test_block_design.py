"""Which is faster, and how fast: recorded rounds, words by hand, and how often simulated confirmations are right.

`benchmarks/comparison_shares.py` simulates more of them, on more machines.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.special import ndtr
from support.comparisons import THREE_ALIKE, TWO, Kind, confirm, log_rates, shares

from autotune.stats import Comparison, Interval, Outcome, Rounds, of_best

MIRRORED = {
    Outcome.FASTER: Outcome.SLOWER,
    Outcome.SLOWER: Outcome.FASTER,
    Outcome.TIE: Outcome.TIE,
    Outcome.AMBIGUOUS: Outcome.AMBIGUOUS,
}
NAN = math.nan


def interval_of(comparison: Comparison) -> Interval:
    assert comparison.ratio.interval is not None
    return comparison.ratio.interval


def noisy(noise: float, shape: tuple[int, int], truths: Sequence[float], *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(truths, noise, shape)


def log_width(comparison: Comparison) -> float:
    return math.log(interval_of(comparison).high / interval_of(comparison).low)


def pairs(*log_ratios: float) -> Rounds:
    """Rounds of two whose ratios are given."""
    return Rounds([[ratio, 0.0] for ratio in log_ratios])


def spread_out(ratio: float, count: int, noise: float) -> list[float]:
    return list(math.log(ratio) + np.linspace(-1.5, 1.5, count) * noise)


class TestRecorded:
    """Samples per second of confirming runs; what was said of them before."""

    def test_resnet_on_an_h200(self) -> None:
        """Once "8.68×, 3.04 to 24.79". Baseline, then three finalists, of which the second was slow once."""
        rates = [[269.17, 2309.96, 2487.65, 2403.5], [263.57, 2312.16, 1819.87, 2483.02]]
        rounds = Rounds(np.log(rates), candidates=(1, 2, 3))
        found = rounds.compare(1, 0)
        assert found.outcome is Outcome.FASTER
        assert found.ratio.value == pytest.approx(8.68, abs=0.01)
        assert 7.2 < interval_of(found).low < 8.58 < 8.77 < interval_of(found).high < 10.4
        throughput = rounds.throughput(1).interval
        assert throughput is not None
        assert 2050 < throughput.low < 2311 < throughput.high < 2620
        two = Rounds(np.log(rates)[:, :2], candidates=(1,)).compare(1, 0)
        assert 7.7 < interval_of(two).low < 8.58 < 8.77 < interval_of(two).high < 9.8

    def test_a_vit_on_an_h200(self) -> None:
        """Four rounds, from which finalists dropped out."""
        rates = [
            [192.85, 1571.34, 1642.83, 1784.83],
            [197.23, 2266.73, 1700.39, 1614.09],
            [222.12, NAN, NAN, 1556.52],
            [206.07, NAN, 1676.42, NAN],
        ]
        rounds = Rounds(np.log(rates), candidates=(1, 2, 3))
        found = rounds.compare(2, 0)
        assert (found.outcome, found.pairs) == (Outcome.FASTER, 3)
        assert found.ratio.value == pytest.approx(8.43, abs=0.05)
        assert 7.1 < interval_of(found).low < interval_of(found).high < 10.1
        throughput = rounds.throughput(2).interval
        assert throughput is not None
        assert 1450 < throughput.low < 1676 < throughput.high < 1950

    @pytest.mark.parametrize(
        "rates",
        [
            pytest.param([[244, 641], [171, 912], [205, 760]], id="as uneven as they may be"),
            pytest.param([[171, 641], [244, 912], [205, 760]], id="whole rounds differ"),
        ],
    )
    def test_every_run_three_times_as_fast_as_every_other(self, rates: Sequence[Sequence[float]]) -> None:
        """Once "3.99×, 0.67 to 23.69, ambiguous": runs of 641 to 912 samples/s against 171 to 244."""
        found = Rounds(np.log(rates), candidates=(1,)).compare(1, 0)
        assert found.outcome is Outcome.FASTER
        assert 1.9 < interval_of(found).low < found.ratio.value < interval_of(found).high < 7
        assert found.slower < 0.001

    def test_the_first_quick_start(self) -> None:
        """Once "2.31×, 0.43 to 12.58": three rounds whose ratios differ by 24 %."""
        found = pairs(*(math.log(2.31) + step for step in (-0.24, 0.0, 0.24))).compare(0, 1)
        assert found.outcome is Outcome.FASTER
        assert 1.4 < interval_of(found).low < interval_of(found).high < 3.8


class TestWords:
    @pytest.mark.parametrize(
        ("ratio", "word"),
        [
            (2.0, Outcome.FASTER),
            (1.011, Outcome.FASTER),
            (1.009, Outcome.TIE),
            (1.0, Outcome.TIE),
            (1 / 1.009, Outcome.TIE),
            (1 / 1.011, Outcome.SLOWER),
            (0.5, Outcome.SLOWER),
        ],
    )
    def test_beyond_doubt_but_only_over_one_percent_is_a_difference(self, ratio: float, word: Outcome) -> None:
        rounds = pairs(*spread_out(ratio, 4, 2e-4))
        assert rounds.compare(0, 1).outcome is word
        assert rounds.is_decided(0, 1)

    def test_what_is_nearer_to_1_than_to_5_percent_for_sure_is_a_tie(self) -> None:
        assert pairs(*spread_out(1.0, 12, 0.01)).compare(0, 1).outcome is Outcome.TIE

    def test_noise_that_hides_5_percent_is_ambiguous(self) -> None:
        rounds = pairs(-0.1, 0.1, -0.08, 0.07, 0.02, -0.03)
        assert rounds.compare(0, 1).outcome is Outcome.AMBIGUOUS
        assert not rounds.is_decided(0, 1)

    def test_one_round_has_a_ratio_and_no_word(self) -> None:
        rounds = pairs(math.log(2))
        comparison = rounds.compare(0, 1)
        assert comparison.ratio.value == pytest.approx(2)
        assert comparison.ratio.interval is None
        assert (comparison.outcome, comparison.pairs) == (Outcome.AMBIGUOUS, 1)
        assert not rounds.is_decided(0, 1)
        assert rounds.throughput(0).interval is None

    def test_one_run_that_other_work_slowed_down_does_not_matter(self) -> None:
        comparison = pairs(*spread_out(1.05, 9, 0.003), math.log(0.6)).compare(0, 1)
        assert comparison.outcome is Outcome.FASTER
        assert comparison.ratio.value == pytest.approx(1.05, abs=0.004)

    def test_the_probability_of_being_slower_is_what_decides(self) -> None:
        for noise in (0.02, 0.05, 0.1, 0.2):
            found = pairs(*spread_out(1.2, 5, noise)).compare(0, 1)
            assert (found.slower <= 0.025) is (found.outcome is Outcome.FASTER)

    def test_a_decision_stands_in_what_is_said_of_it(self) -> None:
        """Never decided and ambiguous; and to end on a look takes more than to say a word."""
        sets = [np.random.default_rng(seed).normal(0.04, 0.03, 3 + seed % 8) for seed in range(100)]
        found = [(pairs(*logs).is_decided(0, 1), pairs(*logs).compare(0, 1).outcome) for logs in sets]
        decided = [word for is_decided, word in found if is_decided]
        assert 10 < len(decided) < sum(word is not Outcome.AMBIGUOUS for _, word in found)
        assert Outcome.AMBIGUOUS not in decided

    def test_the_other_way_round_it_says_the_opposite(self) -> None:
        for seed in range(30):
            rounds = Rounds(np.random.default_rng(seed).normal(0.02, 0.04, (2 + seed % 9, 2)))
            there, back = rounds.compare(0, 1), rounds.compare(1, 0)
            assert back.outcome is MIRRORED[there.outcome]
            assert back.ratio.value * there.ratio.value == pytest.approx(1, abs=1e-4)
            assert interval_of(back).low * interval_of(there).high == pytest.approx(1, abs=2e-3)

    def test_the_order_of_rounds_is_nothing_to_it(self) -> None:
        logs = np.random.default_rng(0).normal(0, 0.03, (8, 3))
        one, other = Rounds(logs).compare(0, 1), Rounds(logs[::-1]).compare(0, 1)
        assert one.ratio.value == pytest.approx(other.ratio.value)
        assert interval_of(one).low == pytest.approx(interval_of(other).low)


class TestTogether:
    def test_what_a_whole_round_suffers_cancels_in_the_ratio_and_not_in_the_throughput(self) -> None:
        steady = noisy(0.005, (4, 3), [0.0, 0.5, 0.4], seed=1)
        uneven = steady + np.array([0.0, -0.3, 0.2, -0.1])[:, None]
        one, other = Rounds(steady), Rounds(uneven)
        calm, moved = one.compare(1, 0), other.compare(1, 0)
        assert moved.ratio.value == pytest.approx(calm.ratio.value, rel=1e-3)
        # Rounds that differ leave open how much of it is the noise of single runs; those that do not say it is small.
        assert log_width(calm) < log_width(moved) < 1.6 * log_width(calm)
        narrow, wide = one.throughput(1).interval, other.throughput(1).interval
        assert narrow is not None
        assert wide is not None
        assert math.log(wide.high / wide.low) > 8 * math.log(narrow.high / narrow.low)

    @pytest.mark.parametrize("third", [False, True], ids=["a pair alone", "beside one that ran once"])
    def test_rounds_that_hardly_differ_tell_a_pair_that_its_noise_is_small(self, third: bool) -> None:
        """Rounds that differ leave open how much of it is the noise of single runs."""
        steady = noisy(0.005, (2, 2), [0.0, 0.5], seed=1)
        uneven = steady + np.array([0.2, -0.2])[:, None]
        if third:
            steady, uneven = (np.column_stack([logs, [0.3, NAN]]) for logs in (steady, uneven))
        calm, moved = Rounds(steady).compare(1, 0), Rounds(uneven).compare(1, 0)
        assert 1.5 * log_width(calm) < log_width(moved)

    def test_a_run_after_the_rounds_tells_of_its_own_throughput_and_of_no_ratio(self) -> None:
        rounds = Rounds(noisy(0.03, (2, 3), [0.0, 0.3, 0.2]), candidates=(1, 2))
        longer = rounds.with_run(1, 0.3)
        before, after = rounds.throughput(1).interval, longer.throughput(1).interval
        assert before is not None
        assert after is not None
        assert math.log(after.high / after.low) < 0.85 * math.log(before.high / before.low)
        assert longer.throughput(2) == rounds.throughput(2)
        assert longer.compare(1, 0) == rounds.compare(1, 0)

    def test_other_configurations_tell_of_the_noise(self) -> None:
        logs = noisy(0.02, (3, 4), [0.0, 0.3, 0.2, 0.2])
        alone, together = (interval_of(Rounds(part).compare(1, 0)) for part in (logs[:, :2], logs))
        assert math.log(together.high / together.low) < 0.8 * math.log(alone.high / alone.low)

    def test_of_the_best_of_several_less_is_certain(self) -> None:
        logs = noisy(0.05, (4, 4), [0.0, 0.1, 0.1, 0.1])
        alone, best = Rounds(logs, candidates=(1,)).compare(1, 0), Rounds(logs, candidates=(1, 2, 3)).compare(1, 0)
        assert interval_of(best).low < interval_of(alone).low
        assert interval_of(best).high > interval_of(alone).high
        assert best.ratio.value == alone.ratio.value, "which is not the fastest of them, and is promised no more"

    def test_the_best_of_several_alike_is_not_as_fast_as_it_seems(self) -> None:
        """Of three that are equal, the one that came out best: most of what it seems too fast by is taken off again."""
        figures, ratios, seemed = [], [], []
        for seed in range(200):
            logs = noisy(0.05, (4, 4), [0.0, 0.3, 0.3, 0.3], seed=seed)
            best = int(logs[:, 1:].mean(axis=0).argmax()) + 1
            rounds = Rounds(logs, candidates=(1, 2, 3))
            seemed.append(logs[:, best].mean() - 0.3)
            figures.append(math.log(rounds.throughput(best).value) - 0.3)
            ratios.append(math.log(rounds.compare(best, 0).ratio.value) - 0.3)
        assert statistics.fmean(seemed) > 0.015
        assert abs(statistics.fmean(figures)) < 0.6 * statistics.fmean(seemed)
        assert abs(statistics.fmean(ratios)) < 0.6 * statistics.fmean(seemed)

    def test_of_one_that_leads_far_nothing_is_luck(self) -> None:
        logs = noisy(0.02, (4, 4), [0.0, 0.6, 0.3, 0.3])
        alone, best = (Rounds(logs, candidates=columns).throughput(1) for columns in ((1,), (1, 2, 3)))
        assert best.value == pytest.approx(alone.value, rel=1e-6)

    def test_runs_after_the_choice_are_no_luck(self) -> None:
        """A soak of the one that was chosen as much as any other."""
        logs = noisy(0.05, (2, 4), [0.0, 0.3, 0.3, 0.3], seed=3)
        best = int(logs[:, 1:].mean(axis=0).argmax()) + 1
        lucky = [float(logs[:, best].mean())] * 6
        rounds, alone = Rounds(logs, candidates=(1, 2, 3)), Rounds(logs, candidates=(best,))
        before = math.log(alone.throughput(best).value / rounds.throughput(best).value)
        for value in lucky:
            rounds, alone = rounds.with_run(best, value), alone.with_run(best, value)
        after = math.log(alone.throughput(best).value / rounds.throughput(best).value)
        assert before > 0.01
        assert after == pytest.approx(before * 2 / 8)

    def test_where_all_of_several_are_faster_each_may_be_doubted_more(self) -> None:
        """Of three that are alike nobody asks whether it was luck that one of them looks fast."""
        baseline, doubtful = np.zeros(5), spread_out(1.2, 5, 0.14)
        all_three = Rounds(np.column_stack([baseline, doubtful, doubtful, doubtful]), candidates=(1, 2, 3)).compare(
            1, 0
        )
        one = Rounds(np.column_stack([baseline, doubtful, baseline, baseline]), candidates=(1, 2, 3)).compare(1, 0)
        assert 0.025 / 2 < all_three.slower < 0.025
        assert 0.025 / 2 < one.slower < 0.025
        assert (all_three.outcome, one.outcome) == (Outcome.FASTER, Outcome.AMBIGUOUS)

    def test_one_that_was_never_going_to_be_chosen_costs_nothing(self) -> None:
        logs = noisy(0.02, (5, 4), [0.0, 0.1, -2.0, -2.0])
        alone, best = Rounds(logs, candidates=(1,)).compare(1, 0), Rounds(logs, candidates=(1, 2, 3)).compare(1, 0)
        assert interval_of(best) == interval_of(alone)

    def test_rounds_without_some_of_them_count_for_the_others(self) -> None:
        widths = []
        for seed in range(20):
            logs = noisy(0.03, (6, 3), [0.0, 0.3, 0.2], seed=seed)
            fewer = Rounds(logs[:2]).compare(1, 0)
            logs[2:, 2] = NAN
            found = Rounds(logs).compare(1, 0)
            assert (found.pairs, Rounds(logs).compare(2, 0).pairs) == (6, 2)
            widths.append((log_width(found), log_width(fewer)))
        assert sum(found for found, _ in widths) < 0.6 * sum(fewer for _, fewer in widths)

    def test_a_cautious_spread_is_larger_while_two_runs_are_all_that_is_known(self) -> None:
        """Two that agree do not mean that nothing varies; many do."""
        nothing, random = Rounds(np.empty((0, 1))), np.random.default_rng(0)
        two, many = [np.array([0.0, 0.01])], [random.normal(0, 0.01, 60)]
        assert nothing.spread_of(two, cautious=True) > 2 * nothing.spread_of(two)
        assert nothing.spread_of(many, cautious=True) < 0.5 * nothing.spread_of(two, cautious=True)

    def test_before_any_round_the_spread_is_what_machines_usually_show(self) -> None:
        assert 0.003 < Rounds(np.empty((0, 4))).spread < 0.05
        noisy = Rounds(np.random.default_rng(0).normal(0, 0.1, (8, 4)))
        assert noisy.spread == pytest.approx(0.1, rel=0.3)


class TestOfBest:
    @pytest.mark.parametrize(
        ("doubts", "corrected"),
        [
            pytest.param([0.02], 0.02, id="one alone"),
            pytest.param([0.01, 0.4, 0.9], 0.03, id="one of three: Bonferroni"),
            pytest.param([0.01, 0.02, 0.025], 0.025, id="all of three: the largest"),
            pytest.param([0.01, 0.012, 0.9], 0.024, id="two of three"),
            pytest.param([0.02, 0.01, 0.9], 0.04, id="not the first of two"),
            pytest.param([0.02, 0.02, 0.02], 0.02, id="all the same"),
        ],
    )
    def test_hochberg_by_hand(self, doubts: Sequence[float], corrected: float) -> None:
        assert of_best(doubts) == pytest.approx(corrected)

    def test_one_of_three_that_only_luck_makes_look_fast_is_called_so_one_time_in_forty(self) -> None:
        """Of doubts that are right, however much they have in common."""
        generator = np.random.default_rng(5)
        for common in (0.0, 0.5, 0.95):
            shared, own = generator.normal(size=(4000, 1)), generator.normal(size=(4000, 3))
            doubts = np.sort(ndtr(math.sqrt(common) * shared + math.sqrt(1 - common) * own))
            false = sum(of_best(list(each)) <= 0.025 for each in doubts) / 4000
            assert 0.01 < false < 0.034, common


class TestShares:
    """How simulated confirmations end. The bands are three standard errors wide of what the benchmark finds."""

    @pytest.mark.parametrize(
        ("kind", "noise", "rounds"),
        [
            (Kind.PLAIN, 0.002, 3),
            (Kind.PLAIN, 0.10, 2),
            (Kind.DRIFT, 0.03, 5),
            (Kind.OUTLIERS, 0.02, 3),
            (Kind.UNEVEN, 0.05, 3),
        ],
    )
    def test_intervals_of_the_best_of_three_hold_the_truth(self, kind: Kind, noise: float, rounds: int) -> None:
        found = shares(kind, noise, THREE_ALIKE, rounds, 100)
        assert found.ratio_covered >= 0.88
        assert found.rate_covered >= 0.87
        assert found.ratio_width < 4 * found.ratio_oracle
        assert found.rate_width < 5 * found.rate_oracle

    def test_intervals_of_one_pair_hold_the_truth(self) -> None:
        found = shares(Kind.PLAIN, 0.03, TWO, 4, 100)
        assert found.ratio_covered >= 0.88

    def test_twice_as_fast_shows_in_two_rounds_and_a_third_faster_in_six(self) -> None:
        """At 10 % of noise."""
        twice = shares(Kind.PLAIN, 0.10, (0.0, math.log(2), -0.1, -0.2), 2, 100)
        assert twice.share(Outcome.FASTER) >= 0.96
        three = shares(Kind.PLAIN, 0.10, (0.0, *[math.log(2)] * 3), 2, 100)
        assert three.share(Outcome.FASTER) >= 0.96
        third = shares(Kind.PLAIN, 0.10, (0.0, math.log(1.3), -0.1, -0.2), 6, 60)
        assert third.share(Outcome.FASTER) >= 0.88

    @pytest.mark.parametrize("kind", Kind)
    def test_of_identical_configurations_none_is_called_faster_but_for_one_time_in_forty(self, kind: Kind) -> None:
        found = shares(kind, 0.10, (0.0, 0.0, 0.0, 0.0), 3, 100)
        assert found.share(Outcome.FASTER) <= 0.07

    def test_a_confirmation_on_a_steady_machine_ends_early(self) -> None:
        rounds = [
            confirm(log_rates(np.random.default_rng(seed), Kind.PLAIN, 0.002, TWO, 10)).rounds for seed in range(9)
        ]
        assert max(rounds) == 3
