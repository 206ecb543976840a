"""Whether the machine disturbed a block, decided by its state alone."""

from __future__ import annotations

import math

from autotune.records import Disturbance, MachineState

_TICK_S = 0.01
"""In which Linux counts a CPU's time, and a process's for others to read."""
_ROUNDING_TICKS = 2.0
_HARMLESS_SHARE = 0.05
"""Share of the CPUs that any machine uses for other things, such as its kernel and autotune's controller."""
_FULL_SHARE = 0.9
"""Share of the CPUs: below it, other processes find a free core."""
_SLOWED_DOWN = frozenset({"hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"})


def disturbances(state: MachineState, seconds: float, cpus: int) -> tuple[Disturbance, ...]:
    """What disturbed a block of `seconds`; decided by the machine's state alone, never by the block's speed.

    `contended`: others compute on the accelerator, or work outside competed with the trial for the CPU cores.
    `throttled`: heat or the power supply held the accelerator's clock down. Its power limit (`sw_power_cap`) does so
    whenever it works hard, and counts as its speed. `cpus`: those that the trial may run on, and on which others were
    counted; a container's quota makes them no fewer for the others.
    """
    found: list[Disturbance] = []
    if state.other_device_processes or _competed_for_cores(state, seconds, cpus):
        found.append("contended")
    if not _SLOWED_DOWN.isdisjoint(state.throttle_reasons):
        found.append("throttled")
    return tuple(found)


def _competed_for_cores(state: MachineState, seconds: float, cpus: int) -> bool:
    """Others kept more busy than any machine has beside, and than the counters' ticks could feign; and with them the
    cores were full.

    Each counter is rounded to a tick at both edges of a block. Each core has its own, so that the errors partly cancel:
    two ticks × √cores is at least 3.5 standard deviations. On two cores that is 0.28 for 0.1 s and 0.06 for 0.5 s.
    """
    if state.outside_load is None:
        return False
    feigned = _ROUNDING_TICKS * _TICK_S * math.sqrt(cpus) / seconds
    if state.outside_load <= max(_HARMLESS_SHARE * cpus, feigned):
        return False
    return state.own_load is None or state.own_load + state.outside_load > _FULL_SHARE * cpus
