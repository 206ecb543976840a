"""Which backend a spec asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autotune.execution.backend import Backend
from autotune.execution.local import LocalBackend
from autotune.execution.place import places
from autotune.execution.slots import SlotsBackend


def start_all(spec: dict[str, Any], folder: Path) -> Backend:
    """The backend of a search: it runs as many trials at once as `execution` in the resolved spec says."""
    if _on_cluster(spec):
        return _cluster(spec, folder)
    slots = places(spec)
    return SlotsBackend(spec, folder, slots) if len(slots) > 1 else LocalBackend(spec, folder, slots[0])


def start_alone(spec: dict[str, Any], folder: Path) -> Backend:
    """The backend that measures one trial at a time, on the place where a search runs its confirming runs."""
    return _cluster(spec, folder) if _on_cluster(spec) else LocalBackend(spec, folder, places(spec)[0])


def _on_cluster(spec: dict[str, Any]) -> bool:
    return bool(spec.get("execution", {}).get("backend") == "ray")


def _cluster(spec: dict[str, Any], folder: Path) -> Backend:
    from autotune.execution.on_ray import RayBackend  # Ray is an extra, and takes a second to import

    return RayBackend(spec, folder)
