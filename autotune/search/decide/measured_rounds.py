"""The runs of the confirmation in their rounds, what the statistics say of them, and how long the next should be."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from autotune.config import TrainConfig
from autotune.measure.evidence import CLEARLY_FASTER
from autotune.measure.plan import EDGE_COUNTS
from autotune.records import ALIKE, Purpose, Rates, SlowBatches, TrialRecord, TrialResult
from autotune.search.decide.study import StudySoFar
from autotune.search.earning import Gain
from autotune.search.figures import is_ok, relative_error, samples_per_s
from autotune.search.policy import KNOWN_TO, SHORTEST_RUN_S
from autotune.stats import (
    FEWEST_ROUNDS,
    Comparison,
    Estimate,
    Interval,
    Posterior,
    Rounds,
    best_run_s,
    rests_on_disturbed,
)

Values = NDArray[np.float64]

ACCURACY, OF_LOADING = 0.004, 0.01
"""What the measuring itself may be off by, relative, as a standard deviation: no repetition shows it, and where
processes differ by 0.1 % it is most of the doubt. By the worlds of docs/worlds.md: where the loader is the limit, a run
of a few fetches is 1 % too fast, for its processes have just begun all at once."""
_WITH_WARM_UP = 1.4
"""Epochs."""
_USUALLY_KNOWN, _OF_SPREAD = 0.01, 0.3
"""Relative standard error with which a run may end before its time, and the most of their spread that it may be."""


_AS_WELL = 2.0
"""Times the error of a run of the rounds: a trial of which less is known says little of how much runs differ."""


class MeasuredRounds:
    """By configuration and round."""

    def __init__(self, study: StudySoFar, finalists: Collection[TrainConfig]) -> None:
        """`finalists`: those among which the best is chosen."""
        self._study = study
        self._by_config: dict[TrainConfig, dict[int, TrialRecord]] = {}
        for run in study.of_purpose(Purpose.CONFIRM):
            if run.round is not None and is_ok(run):
                self._by_config.setdefault(run.result.config, {})[run.round] = run
        others = {*self._by_config, *finalists} - {study.baseline}
        columns = [study.baseline, *sorted(others, key=TrainConfig.canonical_json)]
        self._columns = {config: column for column, config in enumerate(columns)}
        self._rounds = Rounds(
            _logs_of(self._by_config, columns),
            candidates=[self._columns[each] for each in finalists],
            before=[self._before(each) for each in columns],
        )

    def _in_search(self, config: TrainConfig) -> TrialRecord | None:
        """The search trial of a configuration."""
        return next((run for run in self._study.measured if run.result.config == config), None)

    def _before(self, config: TrainConfig) -> float:
        """ln(samples per second) of its search trial. nan if there is none, or if it is known less well than the runs
        of the rounds."""
        trial, runs = self._in_search(config), self.runs(config).values()
        known = max((relative_error(run.result) for run in runs), default=0.0)
        is_known = trial is not None and relative_error(trial.result) <= _AS_WELL * known
        return math.log(samples_per_s(trial)) if trial and is_known else math.nan

    def runs(self, config: TrainConfig) -> dict[int, TrialRecord]:
        """Round → run, for the runs that produced a measurement."""
        return self._by_config.get(config, {})

    def common(self, one: TrainConfig, other: TrainConfig) -> set[int]:
        """The rounds in which both were measured."""
        return self.runs(one).keys() & self.runs(other).keys()

    @property
    def spread(self) -> float:
        """Standard deviation of ln(samples per second) between runs of one configuration."""
        return self._rounds.spread

    def compare(self, one: TrainConfig, other: TrainConfig) -> Comparison:
        """Compare two configurations. Needs one common round. Against the baseline, the interval holds for the best of
        all finalists, because the emitted one is chosen afterwards."""
        found = self._rounds.compare(self._columns[one], self._columns[other])
        return dataclasses.replace(found, ratio=_as_accurate(found.ratio, math.sqrt(2) * ACCURACY))

    def gain(self, one: TrainConfig, other: TrainConfig, *, likely: bool = False) -> Gain | None:
        """The gain with the 95 % interval of these two alone; None for fewer than two common rounds. `likely`: without
        what is probably luck, for two that may well be alike."""
        if self._pairs(one, other) < FEWEST_ROUNDS:
            return None
        of = self._rounds.likely_ratio if likely else self._rounds.ratio
        low, middle, high = map(math.exp, of(self._columns[one], self._columns[other]).quantiles(0.025, 0.5, 0.975))
        return Gain(middle, Interval(low, high), "measured")

    def gain_in_search(self, one: TrainConfig, other: TrainConfig) -> Gain | None:
        """The gain by one run of each in the search, with what the rounds show of how much runs differ. None without
        both runs."""
        runs = [run.result for run in map(self._in_search, (one, other)) if run]
        if len(runs) < 2 or not self._by_config:
            return None
        doubts = [math.hypot(self._differ, relative_error(run), _accuracy_of_one(run)) for run in runs]
        return Gain.of(math.log(samples_per_s(runs[0]) / samples_per_s(runs[1])), math.hypot(*doubts), "measured")

    @cached_property
    def _differ(self) -> float:
        """How much any two runs of one configuration differ."""
        return self._rounds.spread_of(map(self._logs, self.repeated()), cautious=True)

    def is_decided(self, one: TrainConfig, other: TrainConfig) -> bool:
        return self._rounds.is_decided(self._columns[one], self._columns[other])

    def expected_loss(self, one: TrainConfig, other: TrainConfig) -> float:
        """Mean loss in ln(samples per second) from choosing `one`; infinite for fewer than two common rounds."""
        few = self._pairs(one, other) < FEWEST_ROUNDS
        return math.inf if few else self._rounds.expected_loss(self._columns[one], self._columns[other])

    def throughput(self, config: TrainConfig, soaked: TrialResult | None = None) -> Estimate:
        """The throughput. Needs one round. `soaked`: a run of `config` after the rounds. It counts as one more run if
        it is known as well as one: only a small part of a soak may lie where an epoch can be judged."""
        column, rounds = self._columns[config], self._rounds
        if soaked and not rests_on_disturbed(soaked.blocks) and relative_error(soaked) <= self.spread:
            rounds = rounds.with_run(column, math.log(samples_per_s(soaked)))
        return _as_accurate(rounds.throughput(column), self.accuracy(config))

    def doubt(self, config: TrainConfig, *, soaked: bool = False) -> float:
        """Half the width of the throughput's interval, in logarithms, as far as more rounds would narrow it. Needs one
        round; infinite after one. `soaked`: as it will be after one more run, assumed to be as far from the others as
        runs are from each other."""
        column, rounds = self._columns[config], self._rounds
        if soaked and len(self.runs(config)) >= FEWEST_ROUNDS:
            (middle,) = rounds.rate_now(column).quantiles(0.5)
            rounds = rounds.with_run(column, middle - self.spread)
        interval = rounds.throughput(column, now=True).interval
        return math.log(interval.high / interval.low) / 2 if interval and interval.low > 0 else math.inf

    def rate(self, config: TrainConfig) -> Posterior:
        """Posterior of ln(samples per second). Needs one round."""
        return self._rounds.rate(self._columns[config])

    @property
    def well_known(self) -> float:
        """Relative standard error below which a longer run tells no more: the difference between processes, or the
        error of the measurement itself, is larger."""
        return min(_USUALLY_KNOWN, _OF_SPREAD * math.hypot(self.spread, ACCURACY))

    @property
    def data_was_read(self) -> bool:
        """Whether all trials together have trained on as many samples as an epoch has."""
        runs = [record.result for record in self._study.records if record.result.rates]
        epoch = max((run.rates.epoch_samples or 0 for run in runs if run.rates), default=0)
        return 0 < epoch <= sum(block.samples for run in runs for block in run.blocks)

    def repeated(self) -> list[TrainConfig]:
        """Configurations with two or more runs, the search's included."""
        runs = Counter(run.result.config for run in self._alike)
        return [config for config, count in runs.items() if count > 1]

    def well_enough(self, running: Sequence[TrainConfig]) -> float:
        """`well_known` for a run of the search: not better than is usually needed."""
        return max(KNOWN_TO, _OF_SPREAD * self._rounds.spread_of(map(self._logs, running), cautious=True))

    def best_run_s(self, running: Sequence[TrainConfig], *, cautious: bool = False) -> float:
        """By how runs differ, how much of it the noise inside them explains, and what a start costs. Before the first
        round the search's trials tell. `cautious`: as of `Rounds.spread_of`."""
        runs = [run for config in running for run in self.runs(config).values()] or [
            record for record in self._study.measured if record.result.config in running
        ]
        known = [error for run in runs if math.isfinite(error := relative_error(run.result))]
        if not known:
            return SHORTEST_RUN_S
        best_s = best_run_s(
            spread=math.hypot(self._rounds.spread_of(map(self._logs, running), cautious=cautious), ACCURACY),
            within=statistics.median(known),
            run_s=statistics.median(sum(block.seconds for block in run.result.blocks) for run in runs),
            start_s=self._study.costs.fixed_s(running),
        )
        return max(best_s, *(_epoch_s(run.result) for run in runs))

    def _logs(self, config: TrainConfig) -> Values:
        """ln(samples per second) of all its runs, with that of the search: after one round it tells what the round does
        not tell of the spread."""
        return np.log([samples_per_s(run) for run in self._alike if run.result.config == config])

    @cached_property
    def _alike(self) -> Sequence[TrialRecord]:
        return [run for run in self._study.records if run.purpose in ALIKE and is_ok(run)]

    def accuracy(self, config: TrainConfig) -> float:
        """Systematic error that any run of it may have, as a relative standard deviation."""
        return accuracy_of(config, [run.result.rates for run in self.runs(config).values() if run.result.rates])

    def _pairs(self, one: TrainConfig, other: TrainConfig) -> int:
        """Common rounds, without those that were left out."""
        both = self._columns.keys() >= {one, other}
        return self._rounds.pairs(self._columns[one], self._columns[other]) if both else 0


def slow_batches(records: Iterable[TrialRecord], config: TrainConfig) -> SlowBatches:
    """What all trials with micro-batches of the same size have seen of slow batches."""
    return _seen(run for run in records if run.result.config.micro_batch_size == config.micro_batch_size)


def batches_without_slow(records: Iterable[TrialRecord]) -> int:
    """Batches that all trials have loaded if none of them was slow, of any size."""
    every = _seen(records)
    return 0 if every.slow else every.batches


def _seen(records: Iterable[TrialRecord]) -> SlowBatches:
    rates = [record.result.rates or record.result.side_rate for record in records]
    return sum((rate.slow_batches for rate in rates if rate), SlowBatches())


def _logs_of(runs: Mapping[TrainConfig, Mapping[int, TrialRecord]], columns: Sequence[TrainConfig]) -> Values:
    """ln(samples per second): a row for each round, a column for each configuration, without runs that other work
    disturbed."""
    numbers = sorted({number for of_one in runs.values() for number in of_one})
    logs = np.full((len(numbers), len(columns)), math.nan)
    cells = [
        (numbers.index(number), column, run)
        for column, config in enumerate(columns)
        for number, run in runs.get(config, {}).items()
    ]
    for row, column, run in cells:
        logs[row, column] = math.log(samples_per_s(run))
    for row, column, run in cells:
        if rests_on_disturbed(run.result.blocks):
            _leave_out(logs, row, column)
    return logs


def accuracy_of(config: TrainConfig, rates: Sequence[Rates]) -> float:
    """The systematic error that runs of `config` with these rates may have."""
    limited = sum(each.supply_per_s < CLEARLY_FASTER * each.demand_per_s for each in rates)
    return OF_LOADING if config.num_workers and 2 * limited > len(rates) else ACCURACY


def _accuracy_of_one(run: TrialResult) -> float:
    return accuracy_of(run.config, [run.rates] if run.rates else [])


def _epoch_s(result: TrialResult) -> float:
    """Seconds in which a run times a whole epoch, where its edge counts: what an edge costs is measured better than
    calculated, and no repetition shows what the calculation is off by."""
    rates = result.rates
    if rates is None or not rates.epoch_samples:
        return 0.0
    epoch_s = rates.epoch_samples / rates.sustained_per_s
    return _WITH_WARM_UP * epoch_s if rates.epoch_edge_s >= EDGE_COUNTS * epoch_s else 0.0


def _leave_out(logs: Values, row: int, column: int) -> None:
    """One run of other work's making, in place; unless that leaves its configuration fewer than two rounds in common
    with the baseline, the first column, the baseline no two with any, or any that had some none."""
    before, value = _common(logs), logs[row, column]
    logs[row, column] = math.nan
    left = _common(logs)
    if (left[column] if column else max(left[1:], default=0)) < FEWEST_ROUNDS or (left < np.minimum(before, 1)).any():
        logs[row, column] = value


def _common(logs: Values) -> NDArray[np.int64]:
    """For each column, the rows that it and the first column have."""
    known = ~np.isnan(logs)
    return np.asarray((known & known[:, :1]).sum(axis=0))


def _as_accurate(estimate: Estimate, accuracy: float) -> Estimate:
    """The estimate with an interval that also allows for `accuracy`: a relative standard deviation that the spread does
    not show."""
    if estimate.interval is None:
        return estimate
    middle, beyond = math.log(estimate.value), 1.96 * accuracy
    low = middle - math.hypot(middle - math.log(estimate.interval.low), beyond)
    high = middle + math.hypot(math.log(estimate.interval.high) - middle, beyond)
    return Estimate(estimate.value, Interval(math.exp(low), math.exp(high)))
