"""A study on a simulated machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from autotune.records import Facts, SearchResult
from autotune.search import search
from autotune.spec import LoadedSpec, load_spec
from autotune.store import StudyFolder
from support.facts import cpu_facts
from support.simulation import Clock, SimulatedBackend

_SPEC: dict[str, Any] = {
    "model": {"timm": "resnet18"},
    "data": {"synthetic": {"image_size": 64}},
    "training": {"effective_batch_size": 128},
    "budget": "5m",
    "stability": {"soak_steps": 20},
    "strategy": {"name": "random"},
}


class Bench:
    """Runs searches in one folder; each gets a backend of its own, on one clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = StudyFolder(folder / "study")
        self._spec_file = folder / "spec.yaml"
        self.clock = Clock()

    def load(self, **sections: Any) -> LoadedSpec:
        self._spec_file.write_text(yaml.safe_dump(_SPEC | sections))
        return load_spec(self._spec_file)

    def backend(self, *arguments: Any, facts: Facts | None = None, **options: Any) -> SimulatedBackend:
        return SimulatedBackend(self.clock, facts or cpu_facts(), *arguments, **options)

    def search(self, backend: SimulatedBackend, *, fresh: bool = False, **sections: Any) -> SearchResult:
        return search(self.load(**sections), self.folder, fresh=fresh, start_backend=backend, clock=self.clock)
