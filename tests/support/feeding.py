"""Loaders and steps in formulas, where loading computes or waits: what their trials tell, and how soon `auto` knows."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.samplers import GPSampler

from autotune.config import TrainConfig
from autotune.records import Facts
from autotune.search import Space
from autotune.search.performance import OBSERVATION, Observation
from autotune.search.strategies.auto import AutoSampler

NEAR = 0.97
_INTERLOCK = 10.0
"""Of loader and step as a norm: where both are equal, 7 % slower than either."""


@dataclass(frozen=True)
class Feeding:
    """A machine, a loader and a step. Seconds of one sample, but for `optimizer_s`, which are of one step."""

    cores: int
    compute_s: float
    wait_s: float
    step_s: float
    """In fp32, contiguous, in large batches."""
    on_cpu: bool = False
    optimizer_s: float = 0.004
    epoch_samples: float = math.inf

    def demand_s(self, config: TrainConfig) -> tuple[float, float]:
        """Of an optimizer step: forward and backward, and the optimizer's."""
        per_sample = self.step_s * (1 + 12 / config.micro_batch_size)
        per_sample *= 0.4 if config.amp_dtype == "bf16" else 1.0
        if config.memory_format == "channels_last":
            per_sample *= 0.75 if config.amp_dtype == "bf16" else 1.3
        per_sample *= 1.0 if config.pin_memory or self.on_cpu else 1.03
        return per_sample * config.effective_batch_size * self._slowed(config), self.optimizer_s

    def _slowed(self, config: TrainConfig) -> float:
        """By computing loader processes, on a CPU: threads and processes share the cores."""
        wanted = self.cores + config.num_workers * self.compute_s / (self.compute_s + self.wait_s)
        return wanted / self.cores if self.on_cpu else 1.0

    def supply_s(self, workers: int) -> float:
        """Seconds between two samples of so many processes, which queue for the cores (Palm's machine repair model)."""
        if workers == 0:
            return self.compute_s + self.wait_s
        count = 1.1 * self.compute_s  # handing over costs CPU time
        if self.wait_s == 0:
            return count / min(workers, self.cores)
        weights = [1.0]  # of as many processes at the cores, the others waiting
        for queued in range(1, workers + 1):
            rate = (workers - queued + 1) / self.wait_s * count / min(queued, self.cores)
            weights.append(weights[-1] * rate)
        busy = sum(weight * min(queued, self.cores) for queued, weight in enumerate(weights)) / sum(weights)
        return count / busy

    def samples_per_s(self, config: TrainConfig) -> float:
        return config.effective_batch_size / self.whole_s(config)

    def whole_s(self, config: TrainConfig) -> float:
        """Seconds of an optimizer step, with its share of what the edge of an epoch costs: a wait for the first batch,
        or where the loader is the slower anyway half of it."""
        busy_s = sum(self.demand_s(config))
        loading_s = self.supply_s(config.num_workers) * config.effective_batch_size
        if not config.num_workers and self.on_cpu:
            return busy_s + loading_s
        first_s = config.micro_batch_size * config.num_workers * self.supply_s(config.num_workers)
        edge_s = first_s * (1.0 if busy_s > loading_s else 0.5) * config.effective_batch_size / self.epoch_samples
        return float((busy_s**_INTERLOCK + loading_s**_INTERLOCK) ** (1 / _INTERLOCK)) + edge_s

    def observed(self, config: TrainConfig, luck: random.Random | None = None, *, rates: bool = True) -> Observation:
        """What a trial tells; without `rates` what it did in records of before. `luck`: of runs that differ by 2 %."""
        compute_s, optimizer_s = self.demand_s(config)
        whole_s = self.whole_s(config)
        noise = [luck.lognormvariate(0, 0.02) if luck else 1.0 for _ in range(3)]
        told: dict[str, Any] = {
            "status": "ok",
            "wall_s": 8.0,
            "overhead_s": 2.0,
            "first_step_s": 2.0,
            "samples_per_s": config.effective_batch_size / whole_s / noise[0],
            "relative_error": 0.01,
            "compute_s": compute_s * noise[0],
            "optimizer_s": optimizer_s * noise[0],
            "data_wait_s": max(whole_s - compute_s - optimizer_s, 0.0) * noise[0],
        }
        if rates:
            told |= {
                "supply_s": self.supply_s(config.num_workers) * noise[1],
                "supply_error": 0.02,
                "fetch_cpu_s": self.compute_s * (1.1 if config.num_workers else 1.0) * noise[2],
            }
        return Observation(**told)


def search(
    world: Feeding, space: Space, facts: Facts, *, seed: int, rates: bool = True, most: int = 40
) -> list[TrainConfig]:
    """The trials of `auto`, in their order, until one is within 3 % of the best or there have been `most`."""
    study = optuna.create_study(
        sampler=AutoSampler(space, facts, GPSampler(seed=seed), seed=seed), direction="maximize"
    )
    study.enqueue_trial(space.baseline_indices)
    best = max(map(world.samples_per_s, space.configurations()))
    luck, tried = random.Random(seed), []
    while len(tried) < most:
        trial = study.ask(dict(space.distributions))
        config = space.config_at(trial.params)
        seen = world.observed(config, luck, rates=rates)
        trial.set_user_attr(OBSERVATION, seen.to_dict())
        trial.set_constraint("stable", -1.0)
        study.tell(trial, seen.samples_per_s)
        tried.append(config)
        if world.samples_per_s(config) >= NEAR * best:
            break
    return tried


def trials_to_near_best(world: Feeding, space: Space, facts: Facts, *, seeds: int, rates: bool = True) -> list[float]:
    """How many trials each of so many searches needed; infinite where it did not get there."""
    counts = []
    for seed in range(seeds):
        tried = search(world, space, facts, seed=seed, rates=rates)
        best = max(map(world.samples_per_s, space.configurations()))
        counts.append(float(len(tried)) if world.samples_per_s(tried[-1]) >= NEAR * best else math.inf)
    return counts
