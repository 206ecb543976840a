"""How fast, and how sure: throughput of timed blocks, and the comparison of configurations run in alternating rounds.

Pure numbers in, pure numbers out: no torch, no clock, no file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from autotune.records import Block

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided 95 % confidence interval."""

    low: float
    high: float

    def scaled_exp(self) -> Interval:
        """From log-units back to ratios."""
        return Interval(math.exp(self.low), math.exp(self.high))


def student_t(degrees_of_freedom: int, comparisons: int = 1) -> float:
    """Two-sided 95 % quantile of Student's t, for that many comparisons at once (Bonferroni)."""
    return float(stdtrit(degrees_of_freedom, 1 - (1 - CONFIDENCE) / 2 / comparisons))


def throughput(blocks: Sequence[Block]) -> float:
    """Samples per second: total over total. Stalled steps alternate with fast ones, so medians of steps mislead."""
    return sum(block.samples for block in blocks) / math.fsum(block.seconds for block in blocks)


def relative_standard_error(blocks: Sequence[Block]) -> float:
    """Standard error of `throughput` over its value; infinite for fewer than two blocks.

    The ratio estimator's linearised variance (Cochran, Sampling Techniques, 3rd ed., 1977, eq. 2.46 without the finite
    population correction): with R = Σsamples / Σseconds and residuals eᵢ = samplesᵢ − R·secondsᵢ,
    SE(R)/R = √(n/(n−1)·Σeᵢ²) / Σsamples.
    """
    count = len(blocks)
    if count < 2:
        return math.inf
    ratio = throughput(blocks)
    squares = math.fsum((block.samples - ratio * block.seconds) ** 2 for block in blocks)
    return math.sqrt(count / (count - 1) * squares) / sum(block.samples for block in blocks)


def throughput_interval(blocks: Sequence[Block]) -> Interval | None:
    """95 % interval of `throughput` from the spread between blocks of one run; None for fewer than two blocks.

    It covers the noise inside this run only: another process of the same configuration may differ by more.
    """
    if len(blocks) < 2:
        return None
    centre = throughput(blocks)
    half = student_t(len(blocks) - 1) * relative_standard_error(blocks) * centre
    return Interval(max(centre - half, 0.0), centre + half)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval; None where one round alone says nothing about the spread."""

    value: float
    interval: Interval | None


class RoundTable:
    """Throughputs of several configurations, each measured once in every round, in alternation.

    A randomised complete block design (Montgomery, Design and Analysis of Experiments, ch. 4): log throughput =
    configuration + round + noise. What the machine does to a whole round hits all configurations alike and cancels in
    their ratios; the noise is pooled over all of them, so that few rounds suffice.
    """

    def __init__(self, samples_per_s: Mapping[str, Sequence[float]]) -> None:
        """`samples_per_s`: for each configuration its figure in every round, in the order of the rounds."""
        lengths = {len(values) for values in samples_per_s.values()}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError("every configuration needs a figure in every round, and there must be one")
        self._logs = {name: [math.log(value) for value in values] for name, values in samples_per_s.items()}
        self.rounds = len(next(iter(self._logs.values())))

    def throughput(self, name: str) -> Estimate:
        """Geometric mean over the rounds, with Student's interval over them: drift of the machine widens it."""
        mean = self._mean(name)
        freedom = self.rounds - 1
        if freedom < 1:
            return Estimate(math.exp(mean), None)
        squares = math.fsum((value - mean) ** 2 for value in self._logs[name])
        half = student_t(freedom) * math.sqrt(squares / freedom / self.rounds)
        return Estimate(math.exp(mean), Interval(mean - half, mean + half).scaled_exp())

    def ratio(self, name: str, reference: str, *, comparisons: int = 1) -> Estimate:
        """How many times faster `name` is than `reference`, from the residuals after configuration and round.

        `comparisons`: how many such ratios are looked at together; the intervals then cover all of them with 95 %.
        """
        difference = self._mean(name) - self._mean(reference)
        freedom = (len(self._logs) - 1) * (self.rounds - 1)
        if freedom < 1:
            return Estimate(math.exp(difference), None)
        half = student_t(freedom, comparisons) * math.sqrt(2 * self._residual_squares() / freedom / self.rounds)
        return Estimate(math.exp(difference), Interval(difference - half, difference + half).scaled_exp())

    def _mean(self, name: str) -> float:
        return math.fsum(self._logs[name]) / self.rounds

    def _residual_squares(self) -> float:
        count = len(self._logs)
        of_round = [math.fsum(logs[r] for logs in self._logs.values()) / count for r in range(self.rounds)]
        grand = math.fsum(of_round) / self.rounds
        return math.fsum(
            (logs[r] - self._mean(name) - of_round[r] + grand) ** 2
            for name, logs in self._logs.items()
            for r in range(self.rounds)
        )
