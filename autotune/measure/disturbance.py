"""Decides from the machine's state alone whether the machine disturbed a block."""

from __future__ import annotations

import math

from autotune.records import Disturbance, MachineState

_TICK_S = 0.01
"""Unit in which Linux counts the time of a CPU, and of other processes."""
_ROUNDING_TICKS = 2.0
_HARMLESS_SHARE = 0.05
"""Share of the CPUs that any machine uses for other things, such as its kernel and autotune's controller."""
_FULL_SHARE = 0.9
"""Share of the CPUs: below it, other processes find a free core."""
_SLOWED_DOWN = frozenset({"hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"})


def disturbances(state: MachineState, seconds: float, cpus: int) -> tuple[Disturbance, ...]:
    """What disturbed a block of `seconds`. Only the machine's state decides, never the block's speed.

    `contended`: other processes compute on the accelerator, or competed with the trial for the CPU cores. `throttled`:
    heat or the power supply lowered the accelerator's clock. The power limit (`sw_power_cap`) does that under any full
    load, so it does not count. `cpus`: the CPUs that the trial may run on, where other work was counted too; a
    container's quota does not reduce them.
    """
    found: list[Disturbance] = []
    if state.other_device_processes or _competed_for_cores(state, seconds, cpus):
        found.append("contended")
    if not _SLOWED_DOWN.isdisjoint(state.throttle_reasons):
        found.append("throttled")
    return tuple(found)


def _competed_for_cores(state: MachineState, seconds: float, cpus: int) -> bool:
    """Whether other work kept more cores busy than usual on any machine and than rounding of the counters explains, and
    the cores were full with it.

    Each counter is rounded to a tick at both edges of a block. Each core has its own counter, so the errors partly
    cancel: two ticks × √cores is at least 3.5 standard deviations. On two cores that is 0.28 for 0.1 s and 0.06 for 0.5
    s.
    """
    if state.outside_load is None:
        return False
    feigned = _ROUNDING_TICKS * _TICK_S * math.sqrt(cpus) / seconds
    if state.outside_load <= max(_HARMLESS_SHARE * cpus, feigned):
        return False
    return state.own_load is None or state.own_load + state.outside_load > _FULL_SHARE * cpus
