"""What an export is made from, and what a target is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autotune.config import TrainConfig
from autotune.emitted import Emitted
from autotune.errors import SpecError
from autotune.spec import Spec


def _no_advice(_source: Source) -> Sequence[str]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """A study's result, with what the study folder says about the workload."""

    emitted: Emitted
    spec: Spec | None = None
    """None for a result without its study folder."""
    folder: Path | None = None
    """The spec's own, from which its factories are imported."""
    data_folder: str | None = None
    """Where the study's image files lie; None where it had none."""

    @property
    def config(self) -> TrainConfig:
        return self.emitted.config

    @property
    def on_cpu(self) -> bool:
        return str(self.emitted.environment.get("device_kind", "cpu")) == "cpu"

    def require_spec(self, target: str) -> Spec:
        """Raises SpecError where only a lone `best.yaml` is known."""
        if self.spec is None:
            raise SpecError(f"--to {target} needs model and data of the study; give its folder, not best.yaml alone")
        return self.spec


@dataclass(frozen=True, kw_only=True)
class Target:
    """Every `to_….py` of this folder holds one, named `TARGET`."""

    name: str
    """As `--to` says it."""
    render: Callable[[Source], Mapping[str, str]]
    """File name → text. May raise SpecError."""
    expresses: frozenset[str]
    """Knobs that the files set; of all others the notes speak, where they differ from PyTorch's default."""
    advice: Callable[[Source], Sequence[str]] = field(default=_no_advice)
    """Further notes, a sentence each."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was written for one target."""

    target: str
    files: Mapping[str, str]
    about: tuple[str, ...]
    """Study, figures, effective batch size and what it asks of the learning rate, a line each."""
    notes: tuple[str, ...]
    """What the target cannot express, and what its user should know, a sentence each."""
