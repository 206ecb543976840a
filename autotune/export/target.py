"""What an export is made from, and what a target is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.config import TrainConfig
from autotune.emitted import Emitted
from autotune.errors import SpecError
from autotune.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Source:
    """A study's result, with the facts about the workload in its folder."""

    emitted: Emitted
    spec: Spec | None = None
    """The spec as the trials of this configuration used it, with the values of custom knobs in their arguments; None
    for a `best.yaml` without its study."""
    folder: Path | None = None
    """The spec's folder, from which its factories are imported."""
    data_folder: str | None = None
    """The folder of the study's image files; None if it had none, or if it is unknown."""

    @property
    def config(self) -> TrainConfig:
        return self.emitted.config

    @property
    def device_kind(self) -> str:
        """The torch type of the device that was measured."""
        return str(self.emitted.environment.get("device_kind", "cpu"))

    @property
    def on_cpu(self) -> bool:
        return self.device_kind == "cpu"

    @property
    def torch_release(self) -> tuple[int, int] | None:
        """Version of the measured PyTorch, (major, minor); None if it is not known."""
        version = str(self.emitted.environment.get("torch", "")).split(".")
        return (int(version[0]), int(version[1])) if len(version) > 1 and all(map(str.isdigit, version[:2])) else None

    def require_spec(self, target: str) -> Spec:
        """The spec. Raises SpecError if only a `best.yaml` without its study is known."""
        if self.spec is None:
            raise SpecError(
                f"--to {target} needs the study's model and data, which best.yaml does not name; give the study's "
                "folder, spec.yaml included, instead of a copy of its best.yaml"
            )
        return self.spec


def _nothing(_source: Source) -> dict[str, str]:
    return {}


def _none(_source: Source) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Target:
    """Every `to_….py` of this folder holds one, named `TARGET`."""

    name: str
    """The name for `--to`."""
    gives: str
    """What the files are, in up to six words: one line on the screen lists all targets."""
    render: Callable[[Source], Mapping[str, str]]
    """File name → text. May raise SpecError."""
    expresses: frozenset[str]
    """Built-in knobs that the files set. The notes name the others if they differ from PyTorch's default."""
    exceptions: Callable[[Source], Mapping[str, str]] = _nothing
    """Knob → a sentence that names it and replaces "does not set": for values that the target cannot express although
    it has the knob, and for knobs that the target sets by itself."""
    customs: Callable[[Source], Collection[str]] = _none
    """Names of the spec's own knobs that the files set."""
    collates: bool = False
    """Whether the files make batches with the collate function of the spec."""
    remarks: Callable[[Source], Sequence[str]] = _none
    """What else a user of the files should know, one sentence each."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """The files that one target makes of a result."""

    target: str
    files: Mapping[str, str]
    """File name → text, the most important first."""
    about: tuple[str, ...]
    """Where the settings come from and their measured effect, one sentence each."""
    notes: tuple[str, ...]
    """What to know or to do before relying on the files, one sentence each."""
