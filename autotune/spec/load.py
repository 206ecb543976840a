"""Reads a spec file into a `Spec`, and reports all problems together, one line each, with their positions."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autotune.errors import SpecError
from autotune.spec.ablation import AblationSpec, ablation_flaws
from autotune.spec.arguments import argument_flaws
from autotune.spec.document import Document, Flaw
from autotune.spec.fields import Section
from autotune.spec.files import data_folder_flaws, read_spec
from autotune.spec.messages import flaws_of, given, written
from autotune.spec.model import (
    BaselineSpec,
    DataSpec,
    ModelSpec,
    SearchSpec,
    Spec,
    TrainingSpec,
    constraint_flaws,
    disagreements,
)
from autotune.spec.overrides import Override, OverrideError, apply_override, parse_override, shown
from autotune.spec.places import Places, one_line

_SECTION = re.compile(r"(model|data|training|search|strategy)(\.\w+)*")


@dataclass(frozen=True)
class LoadedSpec:
    """A valid spec, with the folder that its relative paths and its `factory:` modules start from."""

    spec: Spec
    folder: Path
    sha256: str
    """Hash of the resolved spec, with overrides and defaults."""
    places: Places | None = field(default=None, compare=False, repr=False)
    """The positions of its values; None for a spec that was not read from a file."""

    def at_its_place(self, problem: str) -> str:
        """`problem`, which begins with a path of the spec such as `model.timm: …`, with file, line and column in
        front."""
        path, colon, message = problem.partition(": ")
        if self.places is None or not colon or not _SECTION.fullmatch(path):
            return problem
        return self.places.lines([Flaw(tuple(path.split(".")), message)])[0]

    @contextlib.contextmanager
    def placing_problems(self) -> Iterator[None]:
        """Add the positions in the spec to problems with workload or strategy."""
        try:
            yield
        except SpecError as error:
            error.problems = tuple(map(self.at_its_place, error.problems))
            error.args = ("\n".join(error.problems),)
            raise


def load_spec(
    path: str | Path, overrides: Sequence[str] = (), *, budget: str | None = None, device: str | None = None
) -> LoadedSpec:
    """The spec in the file at `path`, with `--set`-style `overrides` ("a.b=c"), `--budget` and `--device` applied.

    Raises SpecError with all problems: those of the file by position, then those of the overrides. Data folders in the
    spec must exist.
    """
    path = Path(path)
    document = read_spec(path)
    folder = path.expanduser().absolute().parent
    wanted, broken = _parse_overrides(overrides)
    options = {"budget": budget, "device": device}
    wanted += [Override(f"--{key} {shown(text)}", (key,), text) for key, text in options.items() if text is not None]
    values, places, unapplied = _with_overrides(document, str(path), wanted)
    if values.get("name") is None:
        values["name"] = study_name(path.stem)
    spec, found = _validated(values, folder)
    flaws = [*document.flaws, *(flaw for override in wanted for flaw in override.flaws)]
    problems = [
        *places.lines((*flaws, *found, *data_folder_flaws(values, folder))),
        *map(one_line, (*broken, *unapplied)),
    ]
    if spec is None or problems:
        raise SpecError(problems)
    return LoadedSpec(spec, folder, spec_sha256(spec), places)


def parse_spec(values: Mapping[str, Any], folder: str | Path, file: str | Path = "spec") -> Spec:
    """The spec in `values` (as `model_dump(mode="json", exclude_none=True)` gives them). Raises SpecError, which names
    `file` as the source."""
    document = Document(dict(values))
    spec, flaws = _validated(document.values, Path(folder))
    if spec is None:
        raise SpecError(Places(document, str(file), ()).lines(flaws))
    return spec


def spec_sha256(spec: Spec) -> str:
    """Hash of the content of the spec: the same for two files with the same content."""
    canonical = json.dumps(spec.model_dump(mode="json", exclude_none=True), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def study_name(stem: str) -> str:
    """A study name made from a file's stem: characters that are not allowed in names become `-`."""
    return re.sub(r"^[^A-Za-z0-9]+", "", re.sub(r"[^\w.-]+", "-", stem))[:100] or "study"


def _parse_overrides(texts: Sequence[str]) -> tuple[list[Override], list[str]]:
    parsed, broken = [], []
    for text in texts:
        try:
            parsed.append(parse_override(text))
        except OverrideError as error:
            broken.append(f"--set {shown(text)}: {error}")
    return parsed, broken


def _with_overrides(
    document: Document, file: str, overrides: Sequence[Override]
) -> tuple[dict[str, Any], Places, list[str]]:
    """The document's values with the overrides, their positions, and messages for overrides that could not be
    applied."""
    if not isinstance(document.values, dict):
        problem = Flaw((), f"a spec is a mapping of keys to values (`model: …`), not {given(document.values)}")
        raise SpecError(Places(document, file, ()).lines([problem]))
    values, applied, broken = document.values, [], []
    for override in overrides:
        try:
            attempt = deepcopy(values)
            applied.append((override.option, apply_override(attempt, override.path, override.value)))
            values = attempt
        except OverrideError as error:
            broken.append(f"{override.option}: {error}")
    return values, Places(document, file, applied), broken


def _validated(values: dict[str, Any], folder: Path) -> tuple[Spec | None, list[Flaw]]:
    try:
        return Spec.model_validate(values, context={"folder": folder.absolute()}), []
    except ValidationError as error:
        return None, [*flaws_of(error, values), *_disagreements(values)]


def _disagreements(values: Mapping[str, Any]) -> list[Flaw]:
    """Contradictions between sections, which pydantic checks only if everything else is valid."""
    training, baseline, search, model, data, ablation = (
        _section(section, values.get(key))
        for key, section in (
            ("training", TrainingSpec),
            ("baseline", BaselineSpec),
            ("search", SearchSpec),
            ("model", ModelSpec),
            ("data", DataSpec),
            ("ablation", AblationSpec),
        )
    )
    flaws: list[tuple[tuple[str | int, ...], str]] = []
    if isinstance(search, SearchSpec):
        flaws += constraint_flaws(_lines(values.get("constraints")), search)
        if isinstance(ablation, AblationSpec):
            flaws += ablation_flaws(ablation, search.custom)
        if isinstance(training, TrainingSpec) and isinstance(baseline, BaselineSpec):
            flaws += disagreements(training, baseline, search)
        if isinstance(training, TrainingSpec) and isinstance(model, ModelSpec) and isinstance(data, DataSpec):
            flaws += argument_flaws(search.custom, model, data, training)
    return [Flaw(written(path, values), message) for path, message in flaws]


def _section(section: type[Section], values: object) -> Section | None:
    try:
        return section.model_validate(values)
    except ValidationError:
        return None


def _lines(constraints: object) -> Sequence[object]:
    return constraints if isinstance(constraints, list) else (constraints,)
