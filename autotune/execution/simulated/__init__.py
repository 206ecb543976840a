"""Simulated worlds with a known truth: trials run in virtual time, by discrete events, and the real measuring code
measures them.

A `World` says what each configuration does on one machine. `truth` calculates what a training run of hours gets from
it. A `SimulatedBackend` runs trials in it, with the noise of a real machine, on a clock that only trials move.
"""

from __future__ import annotations

from autotune.execution.simulated.backend import SimulatedBackend, VirtualClock
from autotune.execution.simulated.truth import truth
from autotune.execution.simulated.world import Hardware, Noise, StepTime, World

__all__ = ["Hardware", "Noise", "SimulatedBackend", "StepTime", "VirtualClock", "World", "truth"]
