"""How fast, how sure, and which of two: pure numbers in, pure numbers out; no torch, no clock, no file."""

from __future__ import annotations

from autotune.stats.blocks import (
    noise_has_settled,
    relative_standard_error,
    rests_on_disturbed,
    throughput,
    throughput_interval,
    undisturbed,
)
from autotune.stats.estimate import CONFIDENCE, Estimate, Interval, student_t
from autotune.stats.factorial import Cell, cells, contrast, effects, mean_interval
from autotune.stats.lengths import best_run_s
from autotune.stats.posterior import Posterior
from autotune.stats.rounds import FEWEST_ROUNDS, Rounds
from autotune.stats.words import TIE, WORTHWHILE, Comparison, Outcome, judge, of_best, stated, written

__all__ = [
    "CONFIDENCE",
    "FEWEST_ROUNDS",
    "TIE",
    "WORTHWHILE",
    "Cell",
    "Comparison",
    "Estimate",
    "Interval",
    "Outcome",
    "Posterior",
    "Rounds",
    "best_run_s",
    "cells",
    "contrast",
    "effects",
    "judge",
    "mean_interval",
    "noise_has_settled",
    "of_best",
    "relative_standard_error",
    "rests_on_disturbed",
    "stated",
    "student_t",
    "throughput",
    "throughput_interval",
    "undisturbed",
    "written",
]
