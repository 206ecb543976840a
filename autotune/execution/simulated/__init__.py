"""Worlds whose truth is known: trials in virtual time, by discrete events, measured by the real measuring code.

A `World` says what each configuration does on one machine; `truth` what a training run of hours gets from it; a
`SimulatedBackend` runs trials in it, with the noise of a real machine, on a clock that only trials move.
"""

from __future__ import annotations

from autotune.execution.simulated.backend import SimulatedBackend, VirtualClock
from autotune.execution.simulated.truth import truth
from autotune.execution.simulated.world import Hardware, Noise, StepTime, World

__all__ = ["Hardware", "Noise", "SimulatedBackend", "StepTime", "VirtualClock", "World", "truth"]
