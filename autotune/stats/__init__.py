"""How fast, how sure, and which of two: pure numbers in, pure numbers out; no torch, no clock, no file."""

from __future__ import annotations

from autotune.stats.blocks import (
    noise_has_settled,
    relative_standard_error,
    throughput,
    throughput_interval,
    undisturbed,
)
from autotune.stats.compare import FEWEST_PAIRS, TIE, WORTHWHILE, Comparison, Outcome, compare, is_decided
from autotune.stats.estimate import CONFIDENCE, Estimate, Interval, location, student_t
from autotune.stats.factorial import Cell, cells, contrast, effects, mean_interval

__all__ = [
    "CONFIDENCE",
    "FEWEST_PAIRS",
    "TIE",
    "WORTHWHILE",
    "Cell",
    "Comparison",
    "Estimate",
    "Interval",
    "Outcome",
    "cells",
    "compare",
    "contrast",
    "effects",
    "is_decided",
    "location",
    "mean_interval",
    "noise_has_settled",
    "relative_standard_error",
    "student_t",
    "throughput",
    "throughput_interval",
    "undisturbed",
]
