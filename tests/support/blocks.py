"""A noisy machine in numbers: streams of timed blocks, and rounds in which two configurations take turns on it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from autotune.records import Block
from autotune.stats import throughput

Values = np.ndarray

FAST_S, STALLED_S = 0.006, 0.036
"""The steps of a loader that stalls every second one."""
STEPS = 7
"""In a block: an odd number, so that blocks of four stalled steps alternate with blocks of three."""
_SAMPLES = 32
"""In a step."""


def block(samples: int, seconds: float, steps: int = 1) -> Block:
    return Block(steps=steps, samples=samples, seconds=seconds, phases={})


def blocks_of(seconds: Values) -> list[Block]:
    """Blocks of 100 samples each."""
    return [block(100, float(each)) for each in seconds]


def alternating_s(steps: int, first: int = 0) -> float:
    """Seconds of that many steps: 6 ms, 36 ms, 6 ms, …; `first`: the number of the first of them."""
    return sum(STALLED_S if (first + step) % 2 else FAST_S for step in range(steps))


def independent_s(generator: np.random.Generator, count: int) -> Values:
    """Seconds of blocks of about 1 s that know nothing of each other."""
    return generator.lognormal(0, 0.1, count)


def lingering_s(generator: np.random.Generator, count: int, memory: float = 0.8) -> Values:
    """As many blocks as spread as wide, but each is like the one before: AR(1) in the logarithm."""
    logs = np.empty(count)
    logs[0] = generator.normal()
    fresh = math.sqrt(1 - memory**2) * generator.normal(size=count)
    for number in range(1, count):
        logs[number] = memory * logs[number - 1] + fresh[number]
    return np.exp(0.1 * logs)


def bursts_s(generator: np.random.Generator, count: int) -> Values:
    """Other work comes in one block of twenty, slows all down by 30 %, and stays for five blocks on average."""
    comes, goes = generator.random(count) < 0.05, generator.random(count) < 0.2
    busy = np.empty(count)
    now = bool(generator.random() < 0.2)
    for number in range(count):
        now = not goes[number] if now else bool(comes[number])
        busy[number] = now
    return (1 + 0.3 * busy) * generator.lognormal(0, 0.02, count)


def drifting_s(generator: np.random.Generator, count: int) -> Values:
    """A random walk that no time averages away."""
    return np.exp(np.cumsum(generator.normal(0, 0.02, count))) * generator.lognormal(0, 0.005, count)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Two configurations take turns on it, in random order within each round. Shares are standard deviations."""

    restarts: float
    """By how much one fresh process differs from the next."""
    blocks: float = 0.03
    """By how much one block differs from the next."""
    drift_of_rounds: float = 0.02
    """A step of the machine's random walk from one round to the next."""
    drift_of_runs: float = 0.005
    """A step from one run to the next, within a round."""
    spiked: float = 0.05
    """Share of the runs that other work slows down, by 10 to 50 %."""
    blocks_of_run: int = 13

    def log_ratios(self, generator: np.random.Generator, ratio: float, rounds: int = 100) -> Iterator[float]:
        """ln(throughput of the one ÷ of the other), round by round; the one is `ratio` times faster in truth."""
        slowness = self._slowness(generator, rounds)
        slowness[:, 0] /= ratio
        noise = generator.lognormal(0, self.blocks, (rounds, 2, self.blocks_of_run))
        first_steps = generator.integers(0, 2, (rounds, 2))
        for round_slowness, round_noise, first in zip(slowness, noise, first_steps, strict=True):
            one, other = (
                throughput(self._run(round_noise[run] * round_slowness[run], int(first[run]))) for run in range(2)
            )
            yield math.log(one / other)

    def _slowness(self, generator: np.random.Generator, rounds: int) -> Values:
        """Factor on the seconds of each run: one row a round, one column a configuration."""
        walk = generator.normal(0, self.drift_of_runs, (rounds, 2))
        walk[:, 0] += generator.normal(0, self.drift_of_rounds, rounds)
        machine = generator.permuted(np.cumsum(walk).reshape(rounds, 2), axis=1)
        restarts = generator.normal(0, self.restarts, (rounds, 2))
        spikes = np.where(generator.random((rounds, 2)) < self.spiked, generator.uniform(0.1, 0.5, (rounds, 2)), 0.0)
        return np.exp(machine + restarts) * (1 + spikes)

    def _run(self, factors: Values, first_step: int) -> list[Block]:
        """The blocks of one process, which comes upon the alternation at `first_step`."""
        return [
            block(_SAMPLES * STEPS, alternating_s(STEPS, first_step + number * STEPS) * float(factor), STEPS)
            for number, factor in enumerate(factors)
        ]
