"""A noisy machine in numbers: streams of timed blocks."""

from __future__ import annotations

import math

import numpy as np

from autotune.records import Block

Values = np.ndarray

FAST_S, STALLED_S = 0.006, 0.036
"""The steps of a loader that stalls every second one."""


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
