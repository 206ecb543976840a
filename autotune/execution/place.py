"""Where on this machine a trial runs: which devices it sees, and which CPU cores are its own.

Trials that run side by side would else starve each other's loader processes, and be measured by who came first.
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
"""ROCm goes by it too."""
_VISIBLE_XPU = "ZE_AFFINITY_MASK"


@dataclass(frozen=True, kw_only=True)
class Place:
    """One slot."""

    devices: tuple[int, ...] = ()
    """As the machine numbers them; empty: all that there are."""
    cores: tuple[int, ...] = ()
    """Empty: all that this process may use."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables that its processes have beside those of this one."""


ANYWHERE = Place()


def places(spec: dict[str, Any]) -> list[Place]:
    """The slots of a resolved spec: as many devices each as a trial has ranks, and an equal share of the cores.

    Raises SpecError where the devices do not come to whole slots, EnvironmentFailure where there are fewer cores than
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
    """Numbers of the CPUs that this process may use, those of one core and of one socket next to each other; under a
    container's quota no more of them than it can keep busy, as all slots share that."""
    return sorted(allowed_cpus(), key=lambda cpu: (*_position(cpu), cpu))[: usable_cores()]


def shares_of(cores: Sequence[int], slots: int) -> list[tuple[int, ...]]:
    """Equal shares; what is left over stays idle, lest one slot is faster than the others.

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
    """Variables that show these devices alone, counted among those that this process sees."""
    return {name: ",".join(_named(name, device) for device in devices) for name in (_VISIBLE, _VISIBLE_XPU)}


def _named(variable: str, device: int) -> str:
    shown = os.environ.get(variable)
    if not shown:
        return str(device)
    names = [name.strip() for name in shown.split(",")]
    if device >= len(names):
        raise SpecError(f"execution.devices: there is no device {device}: {variable} shows {len(names)}, {shown}")
    return names[device]
