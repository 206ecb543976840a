"""Confirmations on simulated machines: a baseline and finalists in rounds, looked at after each, and how often what is
said of the best of them is right."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.special import ndtri

from autotune.stats import FEWEST_ROUNDS, Comparison, Estimate, Outcome, Rounds

Values = np.ndarray
PRECISE = 0.02
"""Half the width of the throughput's interval, relative, at which a confirmation ends."""
THREE_ALIKE = (0.0, 0.3, 0.3, 0.3)
"""ln(samples per second) of the baseline and of three finalists that nobody can tell apart."""
TWO = (0.0, 0.3)


class Kind(StrEnum):
    """What is special about a machine, beside that two runs differ."""

    PLAIN = "plain"
    DRIFT = "drift"
    """Whole rounds differ by as much again as runs do, and neighbouring rounds are alike."""
    OUTLIERS = "outliers"
    """Other work makes 8 % of the runs 1.3 to 2 times slower."""
    UNEVEN = "uneven"
    """One of the configurations is three times noisier than the others; the noise given is the root mean square."""


def log_rates(generator: np.random.Generator, kind: Kind, noise: float, truths: Sequence[float], rounds: int) -> Values:
    """Rounds × configurations. `noise`: standard deviation of ln(samples per second) of one run inside a round."""
    count = len(truths)
    spreads = np.full(count, noise)
    if kind is Kind.UNEVEN:
        spreads[generator.integers(count)] *= 3
        spreads *= noise / math.sqrt(float(np.mean(spreads**2)))
    logs = np.asarray(truths) + spreads * generator.normal(size=(rounds, count))
    if kind is Kind.DRIFT:
        logs += noise * _lingering(generator, rounds)[:, None]
    if kind is Kind.OUTLIERS:
        slowed = generator.random((rounds, count)) < 0.08
        logs -= np.where(slowed, np.log(generator.uniform(1.3, 2.0, (rounds, count))), 0.0)
    return logs


def _lingering(generator: np.random.Generator, count: int, memory: float = 0.5) -> Values:
    """Of unit variance, each like the one before."""
    values = generator.normal(size=count)
    for number in range(1, count):
        values[number] = memory * values[number - 1] + math.sqrt(1 - memory**2) * values[number]
    return values


@dataclass(frozen=True, slots=True)
class Emitted:
    """What a confirmation came to: the best finalist, and what is said of it."""

    column: int
    rounds: int
    comparison: Comparison
    throughput: Estimate


def confirm(logs: Values) -> Emitted:
    """Rounds one after another until the answer is clear or there are no more, as a study makes them."""
    return confirmations(logs, [len(logs)])[0]


def confirmations(logs: Values, most: Sequence[int]) -> list[Emitted]:
    """The same for each of several numbers of rounds, ascending, after which there are no more."""
    finalists, found = range(1, logs.shape[1]), list[Emitted]()
    for count in range(FEWEST_ROUNDS, most[-1] + 1):
        so_far = Rounds(logs[:count], candidates=finalists)
        best = max(finalists, key=lambda column: so_far.ratio(column, 0).quantiles(0.5)[0])
        is_clear = count > FEWEST_ROUNDS and so_far.is_decided(best, 0) and _is_precise(so_far.throughput(best))
        if is_clear or count in most:
            here = Emitted(best, count, so_far.compare(best, 0), so_far.throughput(best))
            found += [here] * (len(most) - len(found) if is_clear else 1)
        if is_clear:
            break
    return found


def _is_precise(estimate: Estimate) -> bool:
    return estimate.interval is not None and estimate.interval.is_within(PRECISE)


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Of many confirmations."""

    words: Counter[Outcome]
    rounds: float
    """Mean number of them."""
    ratio_covered: float
    """Share of the intervals that hold the truth."""
    ratio_width: float
    """Median half-width, in log-units."""
    ratio_oracle: float
    """Half-width of the 95 % interval of one pair chosen in advance, whose noise is known and without outliers."""
    rate_covered: float
    rate_width: float
    rate_oracle: float

    def share(self, outcome: Outcome) -> float:
        return self.words[outcome] / self.words.total()


def shares(kind: Kind, noise: float, truths: Sequence[float], rounds: int, count: int, seed: int = 0) -> Shares:
    return shares_by_rounds(kind, noise, truths, [rounds], count, seed)[0]


def shares_by_rounds(
    kind: Kind, noise: float, truths: Sequence[float], most: Sequence[int], count: int, seed: int = 0
) -> list[Shares]:
    """For each of several numbers of rounds, ascending, after which there are no more; of the same runs.

    `seed`: another one for confirmations that nothing was chosen by.
    """
    found = []
    for number in range(count):
        generator = np.random.default_rng([seed, list(Kind).index(kind), round(1e4 * noise), len(truths), number])
        found.append(confirmations(log_rates(generator, kind, noise, truths, most[-1]), most))
    return [_shares(kind, noise, truths, each) for each in zip(*found, strict=True)]


def _shares(kind: Kind, noise: float, truths: Sequence[float], found: Sequence[Emitted]) -> Shares:
    sure, usual = float(ndtri(0.975)) * noise, statistics.fmean(1 / math.sqrt(one.rounds) for one in found)
    over_rounds = 2.0 if kind is Kind.DRIFT else 1.0  # of the variance, were neighbouring rounds not alike
    return Shares(
        words=Counter(one.comparison.outcome for one in found),
        rounds=statistics.fmean(one.rounds for one in found),
        ratio_covered=statistics.fmean(_holds(one.comparison.ratio, truths[one.column] - truths[0]) for one in found),
        ratio_width=statistics.median(_half_width(one.comparison.ratio) for one in found),
        ratio_oracle=sure * math.sqrt(2) * usual,
        rate_covered=statistics.fmean(_holds(one.throughput, truths[one.column]) for one in found),
        rate_width=statistics.median(_half_width(one.throughput) for one in found),
        rate_oracle=sure * math.sqrt(over_rounds) * usual,
    )


def _holds(estimate: Estimate, log_truth: float) -> bool:
    return estimate.interval is not None and estimate.interval.low <= math.exp(log_truth) <= estimate.interval.high


def _half_width(estimate: Estimate) -> float:
    if estimate.interval is None:
        return math.inf
    return math.log(estimate.interval.high / estimate.interval.low) / 2
