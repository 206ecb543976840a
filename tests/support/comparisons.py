"""Comparisons on simulated machines, each of as many rounds as it takes, and how often their words are right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice

import numpy as np

from autotune.stats import Comparison, Outcome, compare, is_decided
from support.blocks import Machine

MOST_ROUNDS = 100
FASTER, SLOWER, SAME = 1.05, 1 / 1.05, 1.0
RIGHT_WORD = {FASTER: Outcome.FASTER, SLOWER: Outcome.SLOWER, SAME: Outcome.TIE}
MACHINES = {
    "calm": Machine(restarts=0.003, blocks=0.01, drift_of_runs=0.001, spiked=0.0),
    "1 %": Machine(restarts=0.01),
    "2 %": Machine(restarts=0.02),
    "3 %": Machine(restarts=0.03),
    "noisy blocks": Machine(restarts=0.01, blocks=0.10),
    "drift": Machine(restarts=0.01, drift_of_rounds=0.10, drift_of_runs=0.02),
    "spikes": Machine(restarts=0.01, spiked=0.10),
    "5 %": Machine(restarts=0.05),
}
"""By what is special about them; the shares are the noise between processes."""


def settled(log_ratios: Iterable[float]) -> Comparison:
    """Rounds one after another until the word is clear, as a study makes them."""
    seen: list[float] = []
    for log_ratio in islice(log_ratios, MOST_ROUNDS):
        seen.append(log_ratio)
        if is_decided(seen):
            break
    return compare(seen)


def comparisons(machine: Machine, ratio: float, count: int) -> list[Comparison]:
    names = [round(1e4 * ratio), round(1e4 * machine.restarts), round(1e4 * machine.drift_of_runs)]
    generators = (np.random.default_rng([*names, seed]) for seed in range(count))
    return [settled(machine.log_ratios(generator, ratio)) for generator in generators]


def words(machine: Machine, ratio: float, count: int) -> Counter[Outcome]:
    return Counter(comparison.outcome for comparison in comparisons(machine, ratio, count))


def said_to_differ(found: Counter[Outcome]) -> float:
    """Share of the false words, of two that are the same."""
    return (found[Outcome.FASTER] + found[Outcome.SLOWER]) / found.total()
