"""Where on this machine a trial runs: which devices it sees, and which CPU cores it may use.

Without this, trials that run side by side would slow down each other's loader processes and spoil the measurements.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotune.errors import EnvironmentFailure, SpecError
from autotune.host import allowed_cpus, usable_cores

_CPUS = Path("/sys/devices/system/cpu")
_VISIBLE = "CUDA_VISIBLE_DEVICES"
"""ROCm uses it too."""
_VISIBLE_XPU = "ZE_AFFINITY_MASK"


@dataclass(frozen=True, kw_only=True)
class Place:
    """One slot."""

    devices: tuple[int, ...] = ()
    """Numbers of the devices on this machine; empty: all of them."""
    cores: tuple[int, ...] = ()
    """Empty: all cores that this process may use."""
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables of its processes, in addition to those of this process."""


ANYWHERE = Place()


def places(spec: dict[str, Any]) -> list[Place]:
    """The slots of a resolved spec: each has as many devices as a trial has ranks, and an equal share of the cores.

    Raises SpecError if the devices do not divide evenly into slots, EnvironmentFailure if there are fewer cores than
    slots.

    """
    execution = spec.get("execution", {})
    devices, ranks = execution.get("devices"), execution.get("ranks_per_trial", 1)
    if not devices:
        return [ANYWHERE]
    groups = [tuple(devices[first : first + ranks]) for first in range(0, len(devices), ranks)]
    shares = shares_of(usable_cpus(), len(groups))
    return [
        Place(devices=group, cores=share, environment=_visible(group))
        for group, share in zip(groups, shares, strict=True)
    ]


def usable_cpus() -> list[int]:
    """Numbers of the CPUs that this process may use; CPUs of one core and of one socket are next to each other. Under a
    container's CPU quota: only as many as the quota can keep busy, because all slots share it."""
    return sorted(allowed_cpus(), key=lambda cpu: (*_position(cpu), cpu))[: usable_cores()]


def shares_of(cores: Sequence[int], slots: int) -> list[tuple[int, ...]]:
    """Equal shares; cores that are left over stay idle, so that no slot is faster than the others.

    Raises EnvironmentFailure where there are fewer cores than slots.
    """
    each = len(cores) // slots
    if each == 0:
        raise EnvironmentFailure(
            f"execution.devices: {slots} trials at once need a CPU core each, and there are {len(cores)}; name fewer "
            "devices"
        )
    return [tuple(cores[slot * each : (slot + 1) * each]) for slot in range(slots)]


def _position(cpu: int) -> tuple[int, int]:
    """Socket and core; (0, number) where the machine does not say."""
    topology = _CPUS / f"cpu{cpu}" / "topology"
    try:
        return int((topology / "physical_package_id").read_text()), int((topology / "core_id").read_text())
    except (OSError, ValueError):
        return 0, cpu


def _visible(devices: Sequence[int]) -> dict[str, str]:
    """Environment variables that make only these devices visible, numbered among the devices that this process sees."""
    return {name: ",".join(_named(name, device) for device in devices) for name in (_VISIBLE, _VISIBLE_XPU)}


def _named(variable: str, device: int) -> str:
    shown = os.environ.get(variable)
    if not shown:
        return str(device)
    names = [name.strip() for name in shown.split(",")]
    if device >= len(names):
        raise SpecError(f"execution.devices: there is no device {device}: {variable} shows {len(names)}, {shown}")
    return names[device]
