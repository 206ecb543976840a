"""Several trials at once on this machine: each slot has its own template, devices and CPU cores."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from autotune.errors import EnvironmentFailure
from autotune.execution.backend import OnEvent
from autotune.execution.local import LocalBackend
from autotune.execution.place import Place
from autotune.records import Facts, TrialRequest, TrialResult


class SlotsBackend:
    """A `LocalBackend` for each place. A trial that runs alone always uses the first, so that confirming runs are
    comparable."""

    remarks: Sequence[str] = ()

    def __init__(self, spec: dict[str, Any], folder: Path, places: Sequence[Place]) -> None:
        self._places = places
        self._backends = [LocalBackend(spec, folder, place) for place in places]
        self._free = list(range(len(places)))
        self._change = threading.Condition()

    @property
    def slots(self) -> int:
        return len(self._backends)

    def facts(self, deadline_s: float) -> Facts:
        """The facts of the first slot. Raises EnvironmentFailure if another slot has devices of another kind."""
        with ThreadPoolExecutor(self.slots) as threads:
            found: list[Facts] = list(threads.map(lambda backend: backend.facts(deadline_s), self._backends))
        for place, facts in zip(self._places, found, strict=True):
            if _kind(facts) != _kind(found[0]):
                raise EnvironmentFailure(
                    f"execution.devices: device {place.devices[0]} is a {_kind(facts)}, device "
                    f"{self._places[0].devices[0]} a {_kind(found[0])}; name devices of one kind only"
                )
        return found[0]

    def run(self, request: TrialRequest, *, deadline_s: float, on_event: OnEvent) -> TrialResult:
        with self._change:
            self._change.wait_for(lambda: self._free)
            slot = heapq.heappop(self._free)
        try:
            return self._backends[slot].run(request, deadline_s=deadline_s, on_event=on_event)
        finally:
            with self._change:
                heapq.heappush(self._free, slot)
                self._change.notify()

    def close(self) -> None:
        for backend in self._backends:  # all at once, and only then wait for the end of each
            backend.end()
        for backend in self._backends:
            backend.close()


def _kind(facts: Facts) -> str:
    return f"{facts.device.name} with {facts.device.total_memory_bytes >> 20} MiB"
