"""What limits a configuration, in words: the loader or the step, by how much, and how many workers would do.

From two rates: what the loader delivers while its queue is not full, and what the step takes while a batch is ready.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from types import MappingProxyType
from typing import Any, NamedTuple

from autotune.config import TrainConfig
from autotune.records import Facts, Measurement, Rates, TrialResult

_EVEN = 0.05
"""Relative difference of the two rates that is too small to act upon."""
_FED = 0.97
"""Share of the step's rate that feeds it."""
_FULL = 0.95
"""Share of what the cores can load, from which on more workers gain nothing."""
_MOST_WORKERS = 128
"""Most workers that a user would start for one training process."""
_WORTH_SAYING = 0.1
"""Share of the time, for what is not the limit itself: waiting, loading in turns, the edges of epochs."""


def figures_of_rates(results: Sequence[TrialResult]) -> dict[str, Any]:
    """The means over several runs of one configuration, by their names in `Measurement`; empty without rates."""
    rates = [result.rates for result in results if result.rates is not None]
    if not rates:
        return {}
    counted = [each.fetch_cpu_s for each in rates if each.fetch_cpu_s is not None]
    return {
        "supply_per_s": fmean(each.supply_per_s for each in rates),
        "demand_per_s": fmean(each.demand_per_s for each in rates),
        "fetch_s": fmean(each.fetch_s for each in rates),
        "fetch_cpu_s": fmean(counted) if counted else None,
        "epoch_edge_fraction": fmean(map(_edge_fraction, rates)),
    }


def _edge_fraction(rates: Rates) -> float:
    """Share of an epoch's time; nothing where no end of one has been seen."""
    if not rates.epoch_samples:
        return 0.0
    return min(rates.epoch_edge_s * rates.sustained_per_s / rates.epoch_samples, 1.0)


class TriedWorkers(NamedTuple):
    """What trials have shown of other numbers of workers than a configuration has."""

    wall_s: float | None = None
    """Seconds that a loader process takes for a sample, with what it costs to hand it over; None where none was seen.
    What loads at once, as tensors in memory do, takes longer to be handed over than to be loaded."""
    speeds: Mapping[int, float] = MappingProxyType({})
    """By the number of workers: throughput of the configuration with so many, relative to its own."""


NONE_TRIED = TriedWorkers()


def bottleneck(figures: Measurement, config: TrainConfig, facts: Facts, tried: TriedWorkers = NONE_TRIED) -> str:
    """What limits `config`: `the loader is the limit: it delivers 1,780 samples/s, the step could take 2,700; 12
    workers would feed the step`. By the phases of the step where no rates are known."""
    if figures.supply_per_s is None or figures.demand_per_s is None:
        return _by_phases(figures, config, facts)
    sides = _Sides(figures.supply_per_s, figures.demand_per_s, figures, config, facts, tried)
    return _by_rates(sides) + _edges(figures)


class _Sides(NamedTuple):
    """Both rates in samples per second, of all training processes, and where they come from."""

    supply: float
    demand: float
    figures: Measurement
    config: TrainConfig
    facts: Facts
    tried: TriedWorkers

    @property
    def in_turns(self) -> bool:
        """Whether the processor that trains loads in between."""
        return not self.config.num_workers and self.facts.device.kind == "cpu"

    @property
    def now(self) -> float:
        """What the two come to together, in the middle of an epoch."""
        both = self.supply * self.demand / (self.supply + self.demand)
        return both if self.in_turns else min(self.supply, self.demand)

    @property
    def wall_s(self) -> float:
        """Seconds of loading a sample in one process."""
        return max(self.config.num_workers, 1) * self.config.world_size / self.supply

    @property
    def handing_over_s(self) -> float:
        """Seconds that a sample takes longer in a loader process than in the training process, which loads now."""
        return max((self.tried.wall_s or 0.0) - self.wall_s, 0.0) if not self.config.num_workers else 0.0

    @property
    def most(self) -> float | None:
        """What all cores together can load, and on a CPU train as well; None where CPU seconds were not counted."""
        if self.figures.fetch_cpu_s is None:
            return None
        core_s = min(self.figures.fetch_cpu_s / self.config.micro_batch_size, self.wall_s) + self.handing_over_s
        if self.facts.device.kind == "cpu":
            threads = self.config.num_threads or self.facts.host.default_num_threads
            core_s += threads * self.config.world_size / self.demand
        return self.facts.host.usable_cores * self.config.world_size / core_s

    def workers_for(self, per_s: float) -> int:
        """Workers of each training process that would be needed: more than there are."""
        wall_s = self.wall_s + self.handing_over_s
        return max(math.ceil(_FED * per_s * wall_s / self.config.world_size), self.config.num_workers + 1)


def _by_rates(sides: _Sides) -> str:
    supply, demand = sides.supply, sides.demand
    loading_share = sides.now / supply
    if sides.in_turns and loading_share >= _WORTH_SAYING:
        turns = f"loading and the step take turns, and loading takes {_percent(loading_share)} of the time"
        return f"{turns}; {_remedy(sides)}"
    if supply >= demand * (1 + _EVEN):
        return f"the step is the limit: {_rate(demand)}; the loader could deliver {_spare(sides)}"
    if demand >= supply * (1 + _EVEN):
        delivers = "it delivers" if sides.config.num_workers else "the training process loads"
        limit = f"the loader is the limit: {delivers} {_rate(supply)}, the step could take {_count(demand)}"
        return f"{limit}; {_remedy(sides)}"
    return f"loader and step are about even: the loader delivers {_rate(supply)}, the step takes {_count(demand)}"


def _spare(sides: _Sides) -> str:
    """What the loader could deliver, and with how few workers it would do."""
    now = sides.config.num_workers
    enough = math.ceil(now * sides.demand * (1 + _EVEN) / sides.supply)
    return _count(sides.supply) + (f" ({enough} of {_workers(now, sides.config)} would do)" if enough < now else "")


def _remedy(sides: _Sides) -> str:
    """So many workers, or samples that load faster."""
    config, most, cores = sides.config, sides.most, sides.facts.host.usable_cores
    needed = sides.workers_for(sides.demand)
    enough = most is None or most >= _FED * sides.demand
    advised = needed if most is None or enough else min(sides.workers_for(most), needed)
    if (measured := _as_measured(sides, advised)) is not None:
        return measured
    all_cores = _all_cores(cores * config.world_size)
    times = f"{sides.demand / sides.supply:.1f} times"
    faster = f"samples would have to load {times} faster"
    if most is None and needed > cores:
        return f"{_workers(needed, config)} would feed the step if loading waits rather than computes; else {faster}"
    if most is None or enough:
        if needed > _MOST_WORKERS:
            return f"to feed the step would take {_workers(needed, config)}, or samples that load {times} faster"
        return f"{_workers(needed, config)} would feed the step"
    if most <= sides.now / _FULL:
        busy = "loading keeps" if sides.facts.device.kind != "cpu" else "loading and the step keep"
        return f"{_no_gain(config)}: {busy} {all_cores} busy" + ("" if sides.in_turns else f"; {faster}")
    return f"{_workers(advised, config)} would raise that to about {_rate(most)}, with {all_cores} busy"


def _as_measured(sides: _Sides, advised: int) -> str | None:
    """What trials with more workers have shown, where `advised` of them, or all that were tried, were slower."""
    config = sides.config
    more = {count: speed for count, speed in sides.tried.speeds.items() if count > config.num_workers}
    count, speed = max(more.items(), key=lambda each: each[1], default=(0, math.inf))
    if speed > 1 and more.get(advised, math.inf) > 1:
        return None
    verb = "was" if count == 1 else "were"
    measured = f"{_workers(count, config)} {verb} measured at {speed:.2f} times its throughput"
    return measured if speed > 1 else f"{_no_gain(config)}: {measured}"


def _edges(figures: Measurement) -> str:
    share = figures.epoch_edge_fraction or 0.0
    if share < _WORTH_SAYING:
        return ""
    return f"; the starts of epochs cost {_percent(share)} of the time, because the queue is empty then"


def _by_phases(figures: Measurement, config: TrainConfig, facts: Facts) -> str:
    """The phase that takes most of a step: `loader-bound: 61 % of the step waits for data`.

    A step that is fed while the one before is computed waits only for a loader that is slower than itself: then the
    loader is the limit, however short the wait.
    """
    phases = {
        "loader-bound: {} of the step waits for data": figures.data_wait_fraction,
        "copy-bound: {} of the step copies batches to the device": figures.copy_fraction,
        "compute-bound: {} of the step is forward and backward": figures.forward_backward_fraction,
        "optimizer-bound: {} of the step is the optimizer update": figures.optimizer_fraction,
    }
    fed_ahead = config.num_workers > 0 or facts.device.kind != "cpu"
    waits = fed_ahead and figures.data_wait_fraction >= _WORTH_SAYING
    sentence = next(iter(phases)) if waits else max(phases, key=lambda sentence: phases[sentence])
    return sentence.format(_percent(phases[sentence]))


def _no_gain(config: TrainConfig) -> str:
    return "more workers gain nothing" if config.num_workers else "workers gain nothing"


def _workers(count: int, config: TrainConfig) -> str:
    return ("1 worker" if count == 1 else f"{count} workers") + (" a process" if config.world_size > 1 else "")


def _all_cores(count: int) -> str:
    return "the only core" if count == 1 else f"all {count} cores"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _count(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.3g}"


def _rate(per_s: float) -> str:
    return f"{_count(per_s)} samples/s"
