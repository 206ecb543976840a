"""The ablation of one spec, from its design to its results. The same call continues an ablation that was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from autotune.ablation.analyse import Analysis
from autotune.ablation.design import Design, plan
from autotune.ablation.notes import notes_on
from autotune.ablation.rounds import OnRun, Rounds, TooShort
from autotune.errors import NoStableConfiguration, SpecError, StudyMismatch
from autotune.execution import Backend, StartBackend, start_alone
from autotune.records import Ablation, Facts
from autotune.search.budget import Budget, Clock
from autotune.search.identity import differences
from autotune.spec import LoadedSpec, Spec, parse_spec
from autotune.store import AblationFolder, read_resolved_spec

_MAY_CHANGE = {"budget", "name", "ablation", "strategy", "stability"}
"""These sections may change between calls: more time, more rounds; a change of the factors shows in the cells."""


class Interrupted(Exception):
    """Ctrl-C. `result`: from the measurements so far; None if there is no result yet."""

    def __init__(self, result: Ablation | None) -> None:
        super().__init__("interrupted")
        self.result = result


def ablate(
    loaded: LoadedSpec,
    folder: AblationFolder,
    *,
    command: str,
    fresh: bool = False,
    began_s: float | None = None,
    on_design: Callable[[Design], None] = lambda _design: None,
    on_run: OnRun = lambda _rounds: None,
    start_backend: StartBackend = start_alone,
    clock: Clock = time.monotonic,
) -> Ablation:
    """Measure the cells of `loaded` in rounds until its budget is spent; earlier calls count. `began_s`: on `clock`.

    `command`: as typed, for the record. Raises Interrupted on Ctrl-C; SpecError if no technique applies, or if the
    budget is too short for three rounds; NoStableConfiguration if no cell trains; WorkloadError, StudyMismatch,
    EnvironmentFailure. Measurements are kept in all cases.
    """
    budget = Budget(loaded.spec.budget, clock, began_s=began_s)
    spec_json = loaded.spec.model_dump(mode="json", exclude_none=True)
    folder.open()
    try:
        backend = start_backend(spec_json, loaded.folder)
        try:
            with loaded.placing_problems():
                facts = backend.facts(budget.remaining_s)
            design = plan(loaded.spec, facts)
            if fresh:
                folder.start_over()
            _refuse_another(folder, loaded.spec, design, facts)
            folder.write_spec(spec_json)
            on_design(design)
            return _measured(loaded, folder, backend, budget, design, facts, command, on_run)
        finally:
            backend.close()
    except KeyboardInterrupt:
        raise Interrupted(None) from None
    finally:
        folder.close()


def _measured(
    loaded: LoadedSpec,
    folder: AblationFolder,
    backend: Backend,
    budget: Budget,
    design: Design,
    facts: Facts,
    command: str,
    on_run: OnRun,
) -> Ablation:
    asked = loaded.spec.ablation
    seed, most = loaded.spec.training.seed, asked.rounds if asked else None
    rounds = Rounds(design, folder, backend, budget, facts, seed=seed, most=most)

    def result(*, interrupted: bool = False) -> Ablation:
        return _ablation(loaded, design, rounds, budget, facts, command, interrupted=interrupted)

    try:
        rounds.run(on_run)
    except KeyboardInterrupt:
        raise Interrupted(result(interrupted=True) if rounds.figures else None) from None
    except TooShort as error:
        kept = f"; the {len(rounds.records)} runs so far are kept" if rounds.records else ""
        raise SpecError(f"{loaded.spec.name}: {error}{kept}") from None
    if not rounds.figures:
        reasons = {record.result.failure.reason for record in rounds.records if record.result.failure}
        raise NoStableConfiguration(f"{loaded.spec.name}: no cell trains here: {'; '.join(sorted(reasons))}")
    return result()


def _ablation(
    loaded: LoadedSpec,
    design: Design,
    rounds: Rounds,
    budget: Budget,
    facts: Facts,
    command: str,
    *,
    interrupted: bool,
) -> Ablation:
    analysis = Analysis(design, rounds.records)
    return Ablation(
        name=loaded.spec.name,
        command=command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        factors=design.factors,
        dropped=tuple(map(str, design.dropped)),
        effective_batch_size=design.effective_batch_size,
        rounds=analysis.rounds,
        processes=len(rounds.records),
        cells=analysis.cells(),
        effects=analysis.effects(),
        together=analysis.together(),
        loss_window=analysis.loss_window(),
        notes=tuple(notes_on(design, analysis, facts)),
        budget_s=budget.total_s,
        elapsed_s=round(max((record.elapsed_s for record in rounds.records), default=0.0), 1),
        interrupted=interrupted,
        environment=facts,
        spec_sha256=loaded.sha256,
    )


def _refuse_another(folder: AblationFolder, spec: Spec, design: Design, facts: Facts) -> None:
    """Raise StudyMismatch if the runs in `folder` belong to another spec, other cells or another machine."""
    records = folder.read_trials()
    if not records:
        return
    before = parse_spec(read_resolved_spec(folder), folder.path)
    found = records[0].environment
    changed = differences(_identity(before, plan(before, found), found), _identity(spec, design, facts))
    if changed:
        raise StudyMismatch(
            f"{folder.path} holds another ablation; what differs:\n"
            + "\n".join(f"  {line}" for line in changed)
            + "\nUse the same spec and machine as before, start over with --fresh (the old one is kept), or use --out"
        )


def _identity(spec: Spec, design: Design, facts: Facts) -> dict[str, Any]:
    machine = {"device": facts.device.name, "cpu": facts.host.cpu, "torch": facts.host.versions.get("torch")}
    return {
        "spec": spec.model_dump(mode="json", exclude_none=True, exclude=_MAY_CHANGE),
        "cells": design.to_dict(),
        "machine": machine,
    }
