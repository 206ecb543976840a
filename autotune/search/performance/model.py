"""The parts together: throughput, memory and cost of any configuration, each with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from autotune.config import TrainConfig
from autotune.records import Facts, SlowBatches
from autotune.search.performance.costs import TrialCosts
from autotune.search.performance.encoding import Encoded, Encoding
from autotune.search.performance.feeding import SHARPNESS, Sharpness, feed, interplay, learn_sharpness, stalls_s
from autotune.search.performance.learn_loading import learn_loading
from autotune.search.performance.limits import LimitModel
from autotune.search.performance.loading import Beside, Loading
from autotune.search.performance.memory import MemoryModel
from autotune.search.performance.observation import Observation
from autotune.search.performance.process import AdditiveProcess, Array, Rows, Scales
from autotune.search.performance.repeats import Repeats, Run, pooled, repeats
from autotune.search.space import Space

_OF_THE_WHOLE = 0.01
"""Standard deviation of what no part explains, in logarithms."""
_OWN = _OF_THE_WHOLE / math.sqrt(2)
"""The same of one of two that are compared, at the least: trials may show that the parts explain less."""
_OPTIMIZER_DOUBTS = {"fused_optimizer": 0.4, "num_threads": 0.3, "compile": 0.2}
_OPTIMIZER_DOUBT = 0.1
_SHORTEST_S = 1e-7
_NO_SPREAD = 2.0
"""Times the noise: trials that differ by less in their compute time are not told apart by it."""


class Prediction(NamedTuple):
    """ln(samples per second) and its standard deviation, for the configuration rather than for one run of it."""

    mean: Array
    doubt: Array
    step_s: Array
    """Seconds of one optimizer step."""


class PerformanceModel:
    """Fitted again for each question, to all trials so far. The scales of its processes are kept."""

    def __init__(self, space: Space, facts: Facts) -> None:
        self.encoding = Encoding(space, facts)
        self._host = facts.host
        on_cpu = facts.device.kind == "cpu"
        self._overlaps = not on_cpu
        samples = facts.workload.dataset_samples
        self._epoch_samples = None if samples is None else samples / space.baseline.world_size
        self._edges = False
        self._interplay = (0.0, 0.0)
        self._sharpness = Sharpness(SHARPNESS, 0.0)
        self._slow: dict[int | None, SlowBatches] = {}
        self._own: dict[TrainConfig, tuple[float, float]] = {}
        self._own_scale = _OWN
        limit = facts.host.memory_bytes if on_cpu else facts.device.total_memory_bytes
        self._compute = AdditiveProcess(self.encoding.alike_for_steps, _compute_scales(self.encoding))
        self._optimizer = AdditiveProcess(self.encoding.alike_for_steps, _optimizer_scales(self.encoding))
        self.memory = MemoryModel(self.encoding, float(limit))
        self.limits = LimitModel(self.encoding)
        self.breakdowns = LimitModel(self.encoding, expected=-1.0, knob_doubt=0.8, batch_doubt=0.4)
        self.loading = Loading(cores=self._host.usable_cores, overlaps=self._overlaps)
        self.costs = TrialCosts([])

    def fit(
        self,
        trials: Sequence[tuple[TrainConfig, Observation]],
        violations: Sequence[Sequence[float]] = (),
        again: Sequence[Run] = (),
        noise_of: Sequence[Run] = (),
        sides: Sequence[Run] = (),
    ) -> None:
        """Needs at least one measured trial.

        `violations`: of the constraints on measures, for each of `trials`, if it is measured. `again`: further
        runs of configurations among them. `noise_of`: runs that only tell how much runs of one configuration differ;
        None given: those of `trials` and `again`. `sides`: runs that measured one side alone, of any configuration.
        """
        repeated = repeats(noise_of or [*trials, *again])
        trials = pooled(trials, again)
        steps = [*trials, *(run for run in sides if run[1].side == "step")]
        self.memory.fit(self.encoding.encode([config for config, _ in steps]), [seen for _, seen in steps])
        self.costs = TrialCosts(trials)
        # A side that fails may do so by itself: no training met a batch twice, or a loader without a device.
        self._learn_breakdowns([(config, seen) for config, seen in trials if not seen.is_oom])
        done = [(config, seen) for config, seen in trials if seen.has_figure]
        self._edges = any(seen.supply_s is not None for _, seen in done)
        loaded = [*done, *(run for run in sides if run[1].side == "loader" and run[1].has_loading)]
        self._slow = _slow_by_size(loaded)
        self.loading = learn_loading(
            loaded, self._host.usable_cores, overlaps=self._overlaps, threads=self._host.default_num_threads
        )
        finished = self.encoding.encode([config for config, _ in done])
        stepped = [run for run in steps if run[1].has_step]
        self._fit_parts(
            self.encoding.encode([config for config, _ in stepped]), [seen for _, seen in stepped], repeated
        )
        self._learn_interplay([(config, seen) for config, seen in done if seen.supply_s is not None])
        self._learn_own(done)
        known = [broken for broken, (_, seen) in zip(violations, trials, strict=bool(violations)) if seen.has_figure]
        if known and known[0]:
            self.limits.fit(finished, known)

    def predict(self, encoded: Encoded) -> Prediction:
        parts = self._parts(encoded)
        shares = parts.shares
        variance = (shares**2 * parts.doubts**2).sum(axis=0) + _OF_THE_WHOLE**2
        return Prediction(self._mean(encoded, parts), np.sqrt(variance), parts.step_s)

    def _mean(self, encoded: Encoded, parts: _Parts) -> Array:
        samples = encoded.batch * encoded.accum * self.encoding.world_size
        return np.asarray(np.log(samples / parts.step_s))

    def demand_per_s(self, encoded: Encoded) -> Array:
        """Samples per second of steps that never wait for data."""
        compute_s = np.exp(self._compute.mean(self._for_compute(encoded))) * encoded.batch
        optimizer_s = np.exp(self._optimizer.mean(encoded.for_optimizer())) / encoded.accum
        return np.asarray(encoded.batch * self.encoding.world_size / (compute_s + optimizer_s))

    def doubts(self, encoded: Encoded) -> tuple[Array, Array, Array]:
        """The step's and the loading's parts of the uncertainty of `predict`, and that of how they go together."""
        parts = self._parts(encoded)
        compute, optimizer, loading, stalls, sharpness = np.abs(parts.shares) * parts.doubts
        return np.hypot(compute, optimizer), np.hypot(loading, stalls), sharpness

    def compare(self, one: TrainConfig, other: TrainConfig) -> tuple[float, float]:
        """ln(throughput of `one` ÷ of `other`) and its standard deviation. What both have in common cancels out. For
        configurations that were tried, their own trials tell what the parts do not explain."""
        encoded = self.encoding.encode([one, other])
        parts = self._parts(encoded)
        mean = self._mean(encoded, parts)
        covariance = np.asarray(sum(self._covariance_of_sides(encoded, encoded, parts, parts)))
        (own, own_variance), (others, others_variance) = self.own(one), self.own(other)
        variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1] + own_variance + others_variance
        return float(mean[0] - mean[1]) + own - others, math.sqrt(max(variance, 0.0))

    def likely(self, config: TrainConfig) -> float:
        """ln(samples per second) of `config` by all trials and its own. The fastest of many trials was lucky, and part
        of what a model predicts is wrong."""
        return float(self.predict(self.encoding.encode([config])).mean[0]) + self.own(config)[0]

    def covariance(self, encoded: Encoded, others: Encoded) -> Array:
        """Covariance of ln(samples per second) of `encoded` and of `others`, without what belongs to each alone."""
        return np.asarray(sum(self.covariance_of_sides(encoded, others)))

    def covariance_of_sides(self, encoded: Encoded, others: Encoded) -> tuple[Array, Array, Array]:
        """The parts of `covariance`, as `doubts` has them."""
        these = self._parts(encoded)
        return self._covariance_of_sides(encoded, others, these, these if others is encoded else self._parts(others))

    def _covariance_of_sides(
        self, encoded: Encoded, others: Encoded, these: _Parts, those: _Parts
    ) -> tuple[Array, Array, Array]:
        compute = self._compute.covariance(self._for_compute(encoded), self._for_compute(others))
        optimizer = self._optimizer.covariance(encoded.for_optimizer(), others.for_optimizer())
        loading = self.loading.covariance(these.loading, those.loading)
        stalls, sharpness = (np.outer(these.doubts[row], those.doubts[row]) for row in (3, 4))
        parts = zip(these.shares, those.shares, (compute, optimizer, loading, stalls, sharpness), strict=True)
        by_compute, by_optimizer, by_loading, by_stalls, by_both = (
            np.outer(share, other) * part for share, other, part in parts
        )
        return by_compute + by_optimizer, by_loading + by_stalls, by_both

    @property
    def noise(self) -> float:
        """Standard deviation of ln(throughput) between runs of one configuration, by the trials so far."""
        return self._compute.noise

    def skill(self) -> float:
        """Share of the variance of the logarithm of compute time that each trial's prediction from all others explains;
        1: all of it, or there is none but noise; 0 or less: a plain mean would do as well."""
        errors, measured = self._compute.leave_one_out(), self._compute.values
        spread = float(((measured - measured.mean()) ** 2).mean())
        return 1.0 if spread < (_NO_SPREAD * self.noise) ** 2 else 1 - float((errors**2).mean()) / spread

    def probability_to_work(self, encoded: Encoded) -> Array:
        """Probability that a trial is measured and meets the constraints; memory is judged separately."""
        return self.breakdowns.probability_to_meet(encoded) * self.limits.probability_to_meet(encoded)

    def _learn_breakdowns(self, trials: Sequence[tuple[TrainConfig, Observation]]) -> None:
        """Learn from trials that crashed, diverged, hung or raised, and from those that did not."""
        if all(seen.has_figure for _, seen in trials):
            return
        outcomes = [[-1.0 if seen.has_figure else 1.0] for _, seen in trials]
        self.breakdowns.fit(self.encoding.encode([config for config, _ in trials]), outcomes)

    def _fit_parts(self, encoded: Encoded, seen: Sequence[Observation], repeated: Repeats) -> None:
        compute_s = np.array([one.compute_s for one in seen]) / encoded.accum / encoded.batch
        optimizer_s = np.array([one.optimizer_s for one in seen])
        runs = np.array([float(one.runs) for one in seen])
        errors = np.array([one.relative_error if one.step_error is None else one.step_error for one in seen])
        self._compute.fit(
            self._for_compute(encoded), np.log(np.maximum(compute_s, _SHORTEST_S)), errors, runs, repeated
        )
        self._optimizer.fit(encoded.for_optimizer(), np.log(np.maximum(optimizer_s, _SHORTEST_S)), errors, runs)

    def _learn_interplay(self, rated: Sequence[tuple[TrainConfig, Observation]]) -> None:
        """Learn how the two sides go together, from trials that measured each of them and what they sustained. For
        other trials the parts add up to the whole by definition."""
        self._interplay, self._sharpness = (0.0, 0.0), Sharpness(SHARPNESS, 0.0)
        if rated:
            self._sharpness = self._learn_sharpness(rated)
            encoded = self.encoding.encode([config for config, _ in rated])
            expected_s = self._parts(encoded).step_s
            took_s = [config.effective_batch_size / (seen.samples_per_s or math.inf) for config, seen in rated]
            self._interplay = interplay(encoded.workers, np.log(np.array(took_s) / expected_s))

    def _learn_sharpness(self, rated: Sequence[tuple[TrainConfig, Observation]]) -> Sharpness:
        fed = [(config, seen) for config, seen in rated if config.num_workers and seen.supply_s and seen.samples_per_s]
        batch = np.array([float(config.micro_batch_size) for config, _ in fed])
        busy_s = np.array([(seen.compute_s + seen.optimizer_s) / config.grad_accum_steps for config, seen in fed])
        loading_s = np.array([seen.supply_s or 0.0 for _, seen in fed]) * batch
        took_s = np.array(
            [
                config.effective_batch_size / config.grad_accum_steps / (seen.samples_per_s or 1.0)
                for config, seen in fed
            ]
        )
        first_wait_s = np.array([float(config.num_workers) for config, _ in fed]) * loading_s * self._edges_of(batch)
        errors = np.array([seen.relative_error for _, seen in fed])
        stall_s = self._stalls(self.encoding.encode([config for config, _ in fed]), busy_s, loading_s)
        return learn_sharpness(took_s, busy_s, loading_s, first_wait_s, errors, stall_s)

    def _stalls(self, encoded: Encoded, busy_s: Array, loading_s: Array) -> Array:
        """Seconds that each micro-batch waits for slow ones. A process that shares its core takes longer only if
        loading is the limit."""
        slow = [self._slow_of(size) for size in encoded.batch]
        share = np.array([each.slow / max(each.batches, 1) for each in slow])
        fetch_s = np.minimum(loading_s * encoded.workers, self.loading.in_process_s * encoded.batch)
        return stalls_s(share, np.array([each.times for each in slow]), fetch_s, busy_s, encoded.queue)

    def _slow_of(self, size: float) -> SlowBatches:
        """Slow batches among micro-batches of this size. If none of these was slow, among all sizes."""
        own = self._slow.get(int(size))
        return own if own and own.slow else self._slow.get(None, SlowBatches())

    def _edges_of(self, batch: Array) -> Array | float:
        """Edges of epochs per micro-batch."""
        return batch / self._epoch_samples if self._edges and self._epoch_samples else 0.0

    def _learn_own(self, done: Sequence[tuple[TrainConfig, Observation]]) -> None:
        """Learn what no part explains of each trial, as far as it exceeds the noise."""
        predicted = self.predict(self.encoding.encode([config for config, _ in done])).mean
        missing = np.log([seen.samples_per_s or _SHORTEST_S for _, seen in done]) - predicted
        noise = np.array([seen.relative_error**2 + self.noise**2 / seen.runs for _, seen in done])
        weights = (noise + _OWN**2) ** -2.0
        scale = max(float((weights * (missing**2 - noise)).sum() / weights.sum()), _OWN**2)
        self._own_scale = math.sqrt(scale)
        means, variances = missing * scale / (scale + noise), scale * noise / (scale + noise)
        self._own = {
            config: (float(mean), float(variance))
            for (config, _), mean, variance in zip(done, means, variances, strict=True)
        }

    def own(self, config: TrainConfig) -> tuple[float, float]:
        """Mean and variance, in logarithms, of what no part explains of `config`."""
        return self._own.get(config, (0.0, self._own_scale**2))

    def _for_compute(self, encoded: Encoded) -> Rows:
        """Rows for the compute time. On a CPU, loader processes that compute are expected to take their share."""
        rows = encoded.for_compute()
        if self._overlaps:
            return rows
        return rows._replace(prior=rows.prior + self.loading.slows_down(encoded.workers, encoded.threads))

    def _parts(self, encoded: Encoded) -> _Parts:
        compute, compute_doubt = self._compute.predict(self._for_compute(encoded))
        optimizer, optimizer_doubt = self._optimizer.predict(encoded.for_optimizer())
        compute_s, optimizer_s = np.exp(compute) * encoded.batch, np.exp(optimizer) / encoded.accum
        busy_s = compute_s + optimizer_s  # of a micro-batch, with its share of the optimizer's
        beside = Beside(encoded.threads, busy_s / encoded.batch)
        loading, gradient = self.loading.predict(encoded.workers, beside)
        loading_s = np.exp(loading) * encoded.batch
        hidden = self.loading.hidden(encoded.workers)
        first_wait_s = encoded.workers * loading_s * self._edges_of(encoded.batch)
        sharpness = np.where(encoded.workers > 0, self._sharpness.norm, SHARPNESS)
        fed = feed(busy_s, loading_s, hidden, first_wait_s, sharpness, self._stalls(encoded, busy_s, loading_s))
        of_compute = compute_s / busy_s
        of_busy = [fed.of_busy * of_compute, fed.of_busy * (1 - of_compute)]
        shares = np.stack([*of_busy, fed.of_loading, fed.of_stalls, fed.of_sharpness])
        # The number of slow batches varies by its root.
        of_stalls = np.array([max(self._slow_of(size).slow, 1) ** -0.5 for size in encoded.batch])
        of_sharpness = np.where(encoded.workers > 0, self._sharpness.doubt, 0.0)
        doubts = np.stack([compute_doubt, optimizer_doubt, self.loading.deviation(gradient), of_stalls, of_sharpness])
        period_s = fed.period_s * np.exp(np.where(encoded.workers > 0, self._interplay[1], self._interplay[0]))
        return _Parts(period_s * encoded.accum, shares, doubts, gradient)


class _Parts(NamedTuple):
    """Compute, optimizer, loading, waiting for slow batches, and how both sides go together, a row each."""

    step_s: Array
    shares: Array
    """How much of a relative change of a part is one of the step's time."""
    doubts: Array
    loading: Array
    """Gradient of the last: (configurations, parameters of `Loading`)."""


def _compute_scales(encoding: Encoding) -> Scales:
    return Scales(
        mains=encoding.doubts,
        pairs=0.12,
        knee=0.2,
        curve=0.10,
        curve_by_knob=0.12,
        accumulation=0.03,
        residual=0.03,
        noise=0.05,
    )


def _optimizer_scales(encoding: Encoding) -> Scales:
    mains = tuple(_OPTIMIZER_DOUBTS.get(knob, _OPTIMIZER_DOUBT) for knob in encoding.knobs)
    return Scales(mains=mains, pairs=0.1, residual=0.05, noise=0.1)


def _slow_by_size(trials: Sequence[tuple[TrainConfig, Observation]]) -> dict[int | None, SlowBatches]:
    """Slow batches by micro-batch size. None: over all sizes."""
    found: dict[int | None, SlowBatches] = {}
    for config, seen in trials:
        for size in (config.micro_batch_size, None):
            found[size] = found.get(size, SlowBatches()) + seen.slow
    return found


def log_interval(mean: float, doubt: float) -> tuple[float, float, float]:
    """A value with its 95 % interval, from the mean and the standard deviation of its logarithm."""
    return math.exp(mean), math.exp(mean - 1.96 * doubt), math.exp(mean + 1.96 * doubt)
