"""Ablations on a simulated machine, whose techniques give what a formula says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from autotune.ablation import ablate
from autotune.config import TrainConfig
from autotune.records import Ablation, Facts
from autotune.spec import LoadedSpec, load_spec
from autotune.store import AblationFolder
from support.facts import cuda_facts
from support.simulation import Behaviour, Clock, FormulaBackend

SPEC: dict[str, Any] = {
    "model": {"timm": "resnet18"},
    "data": {"synthetic": {"image_size": 64}},
    "training": {"effective_batch_size": 128},
    "budget": "10m",
    "baseline": {"num_workers": 2},
}
PLAIN_RATE = 1000.0
ACCUMULATION, AMP, PINNING, AMP_WITH_ACCUMULATION = 0.9, 1.8, 1.1, 0.95


def techniques(config: TrainConfig) -> float:
    """Samples per second: every technique its ratio, and one interaction."""
    rate = PLAIN_RATE
    rate *= ACCUMULATION if config.grad_accum_steps > 1 else 1
    rate *= AMP if config.amp_dtype != "none" else 1
    rate *= PINNING if config.pin_memory else 1
    return rate * (AMP_WITH_ACCUMULATION if config.grad_accum_steps > 1 and config.amp_dtype != "none" else 1)


class AblationBench:
    """Runs ablations of one spec in one folder; each gets a backend of its own, on one clock."""

    def __init__(self, path: Path) -> None:
        self.folder = AblationFolder(path / "resnet18")
        self.clock = Clock()
        self._spec_file = path / "resnet18.yaml"

    def load(self, **sections: Any) -> LoadedSpec:
        self._spec_file.write_text(yaml.safe_dump(SPEC | sections))
        return load_spec(self._spec_file)

    def backend(
        self, behaviour: Behaviour = techniques, *, facts: Facts | None = None, **options: Any
    ) -> FormulaBackend:
        return FormulaBackend(self.clock, facts or cuda_facts(), behaviour, **options)

    def ablate(
        self,
        backend: FormulaBackend | None = None,
        *,
        fresh: bool = False,
        on_run: Callable[[Any], None] = lambda _rounds: None,
        **sections: Any,
    ) -> Ablation:
        return ablate(
            self.load(**sections),
            self.folder,
            command="autotune ablate resnet18.yaml",
            fresh=fresh,
            on_run=on_run,
            start_backend=backend or self.backend(),
            clock=self.clock,
        )
