"""A study on a simulated machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import yaml

from autotune.execution import StartBackend
from autotune.records import Facts, SearchResult
from autotune.search import Listener, open_study, search
from autotune.search.storage import OpenStudy, stored_study
from autotune.spec import LoadedSpec, load_spec
from autotune.store import StudyFolder
from support.facts import cpu_facts
from support.simulation import Clock, FormulaBackend
from support.storage import MemoryStudies

BUDGET_S = 180.0
"""Where a test gives none: a search of five minutes decides twice as often, each time over twice as many records."""
_SPEC: dict[str, Any] = {
    "model": {"timm": "resnet18"},
    "data": {"synthetic": {"image_size": 64}},
    "training": {"effective_batch_size": 128},
    "budget": f"{BUDGET_S:.0f}s",
    "stability": {"soak_steps": 20},
    "strategy": {"name": "random"},
}


class Bench:
    """Runs searches in one folder; each gets a backend of its own, on one clock."""

    def __init__(self, folder: Path, *, on_disk: bool = False) -> None:
        """`on_disk`: whether Optuna keeps the study in SQLite, as it does outside of tests, at four times the cost."""
        self.folder = StudyFolder(folder / "study")
        self._spec_file = folder / "spec.yaml"
        self._memory = None if on_disk else MemoryStudies()
        self.open_study: OpenStudy = self._memory or open_study
        self.clock = Clock()

    def load(self, **sections: Any) -> LoadedSpec:
        self._spec_file.write_text(yaml.safe_dump(_SPEC | sections))
        return load_spec(self._spec_file)

    def backend(self, *arguments: Any, facts: Facts | None = None, **options: Any) -> FormulaBackend:
        return FormulaBackend(self.clock, facts or cpu_facts(), *arguments, **options)

    def search(
        self,
        backend: StartBackend,
        *,
        fresh: bool = False,
        use_all: bool = False,
        on: Listener | None = None,
        opened: OpenStudy | None = None,
        **sections: Any,
    ) -> SearchResult:
        return search(
            self.load(**sections),
            self.folder,
            fresh=fresh,
            use_all=use_all,
            listener=on or Listener(),
            open_study=opened or self.open_study,
            start_backend=backend,
            clock=self.clock,
        )

    def to_disk(self) -> None:
        """Finish with Optuna's study in SQLite, at a quarter of what a search that keeps it there takes."""
        if self._memory is not None:
            self._memory.to_disk(self.folder)
        self._memory, self.open_study = None, open_study

    def optuna_trials(self) -> list[optuna.trial.FrozenTrial]:
        """What Optuna holds of the study, in whichever storage."""
        if self._memory is not None:
            return self._memory.study(self.folder).get_trials()
        with stored_study(self.folder, writable=False) as study:
            return study.get_trials()
