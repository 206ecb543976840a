"""`sweep`: every configuration of a space, or a stratified sample of them, measured into one table.

Configurations run in passes, each in its own random order, so that a drift of the machine affects all equally. The
table on disk is the state: the same command continues where the last one stopped.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from autotune.bench.sample import stratified
from autotune.config import TrainConfig
from autotune.errors import SpecError, StudyMismatch
from autotune.execution import Backend, StartBackend, start_alone
from autotune.records import RecordedRun, Table, TrialRequest, TrialResult, TrialStatus
from autotune.search import Space, build_space, study_identity
from autotune.search.identity import differences
from autotune.spec import LoadedSpec, parse_spec
from autotune.stats.sustained import sustained_per_s
from autotune.tables import read_table, table_path, write_table

MOST_CONFIGURATIONS = 5_000
"""A larger number is probably a mistake: at two seconds each, these take three hours."""
_LOOK_LIMIT_S = 300.0
_PATIENCE_S, _TIMES_THE_TRIAL = 60.0, 20.0
_COMPILE_ALLOWANCE_S = 240.0
_SAVE_EVERY_S = 5.0
_SPOILED = 0.5
"""Share of a run's timed seconds that were disturbed; it is then run once more."""

OnRun = Callable[["SweepProgress"], None]


@dataclass(frozen=True, kw_only=True)
class SweepProgress:
    """One run has ended."""

    done: int
    planned: int
    run: RecordedRun
    remaining_s: float
    """Estimated from the pace so far."""


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What a table will contain."""

    trial_s: float
    repeats: int
    sample: int | None
    """How many configurations; None: all of them."""
    seed: int


def sweep(
    loaded: LoadedSpec,
    plan: SweepPlan,
    *,
    out: Path | None,
    studies: Path,
    command: str,
    on_run: OnRun = lambda _progress: None,
    start_backend: StartBackend = start_alone,
) -> Path:
    """Measure the space of `loaded` into a table, and return its path: `out`, or its usual place under `studies`.

    Ctrl-C leaves a table of what was measured. Raises SpecError if the space is too large, StudyMismatch if the file
    contains another table, WorkloadError, EnvironmentFailure.
    """
    spec_json = loaded.spec.model_dump(mode="json", exclude_none=True)
    backend = start_backend(spec_json, loaded.folder)
    try:
        with loaded.placing_problems():
            facts = backend.facts(_LOOK_LIMIT_S)
        space = build_space(loaded.spec, facts)
        configs = _chosen(space, plan)
        path = out or table_path(studies, facts, loaded.spec.name)
        empty = Table(
            name=loaded.spec.name,
            created=_now(),
            command=command,
            spec=spec_json,
            facts=facts,
            trial_s=plan.trial_s,
            planned=len(configs),
            size=None if space.size == float("inf") else int(space.size),
            sample=plan.sample,
            seed=plan.seed,
            repeats=plan.repeats,
            runs=(),
        )
        table = _resumed(path, empty, space) if path.exists() else empty
        _Recorder(backend, path, table, plan, on_run).run(configs)
        return path
    finally:
        backend.close()


class _Recorder:
    """Runs what a table still lacks."""

    def __init__(self, backend: Backend, path: Path, table: Table, plan: SweepPlan, on_run: OnRun) -> None:
        self._backend = backend
        self._path = path
        self._table = table
        self._plan = plan
        self._on_run = on_run
        self._runs = list(table.runs)
        self._saved_at_s = time.monotonic()
        self._done_before = len(self._runs)
        self._repeating = 0
        """Disturbed runs that are still to be repeated."""

    def run(self, configs: list[TrainConfig]) -> None:
        began_s, measured = time.monotonic(), 0
        try:
            for config, repeat, again in self._missing(configs):
                self._keep(self._measure(config, repeat, again=again))
                measured += 1
                self._repeating -= again
                if time.monotonic() - self._saved_at_s > _SAVE_EVERY_S:
                    self._save()
                left = max(self._planned(configs) - len(self._runs), 0) + self._repeating
                pace_s = (time.monotonic() - began_s) / measured
                done = self._done_before + measured
                self._on_run(
                    SweepProgress(done=done, planned=done + left, run=self._runs[-1], remaining_s=pace_s * left)
                )
        finally:
            self._save()

    def _missing(self, configs: list[TrainConfig]) -> Iterator[tuple[TrainConfig, int, bool]]:
        """Pass by pass; then once again what was disturbed most of the time."""
        recorded = {(run.config, run.repeat) for run in self._runs}
        for repeat in range(self._plan.repeats):
            for config in random.Random(f"{self._plan.seed}-{repeat}").sample(configs, len(configs)):
                if (config, repeat) not in recorded and not self._has_failed(config):
                    yield config, repeat, False
        spoiled = [run for run in self._runs if run.disturbed_share > _SPOILED and not run.again]
        self._repeating = len(spoiled)
        for run in spoiled:
            yield run.config, run.repeat, True

    def _keep(self, run: RecordedRun) -> None:
        """Add `run`. If it repeats a disturbed run and has a measurement, it replaces that run."""
        before = next((old for old in self._runs if (old.config, old.repeat) == (run.config, run.repeat)), None)
        if before is not None:
            self._runs.remove(before)
            run = run if run.status is TrialStatus.OK else before.model_copy(update={"again": True})
        self._runs.append(run)

    def _has_failed(self, config: TrainConfig) -> bool:
        return any(run.config == config and run.status is not TrialStatus.OK for run in self._runs)

    def _planned(self, configs: list[TrainConfig]) -> int:
        failed = sum(run.status is not TrialStatus.OK for run in self._runs)
        return len(configs) * self._plan.repeats - failed * (self._plan.repeats - 1)

    def _measure(self, config: TrainConfig, repeat: int, *, again: bool) -> RecordedRun:
        trial_s = self._plan.trial_s
        request = TrialRequest(config=config, seed=self._plan.seed + repeat, time_limit_s=trial_s)
        deadline_s = _PATIENCE_S + _TIMES_THE_TRIAL * trial_s
        deadline_s += _COMPILE_ALLOWANCE_S if config.compile != "none" else 0.0
        started = _now()
        result = self._backend.run(request, deadline_s=deadline_s, on_event=lambda _event: None)
        speed = _samples_per_s(result)
        return RecordedRun.of(result, repeat=repeat, samples_per_s=speed, started=started, again=again)

    def _save(self) -> None:
        write_table(self._path, self._table.model_copy(update={"runs": tuple(self._runs)}))
        self._saved_at_s = time.monotonic()


def _chosen(space: Space, plan: SweepPlan) -> list[TrainConfig]:
    if plan.sample is not None and plan.sample < space.size:
        return stratified(space, plan.sample, plan.seed)
    if space.size > MOST_CONFIGURATIONS:
        raise SpecError(
            f"the space has more than {MOST_CONFIGURATIONS:,} points; narrow `search`, or give --sample 200"
        )
    return space.configurations()


def _resumed(path: Path, wanted: Table, space: Space) -> Table:
    """The table at `path`, if it has the same space, machine and plan."""
    found = read_table(path)
    before = study_identity(found.spec, build_space(parse_spec(found.spec, "."), found.facts), found.facts)
    now = study_identity(wanted.spec, space, wanted.facts)
    for plan, table in ((before, found), (now, wanted)):
        plan["plan"] = {"trial_s": table.trial_s, "sample": table.sample, "seed": table.seed}
    changed = differences(before, now)
    if changed:
        raise StudyMismatch(
            f"{path} holds another table; what differs:\n"
            + "\n".join(f"  {line}" for line in changed)
            + "\nUse the same spec and machine as before, or give another file with --out"
        )
    kept = {"name": found.name, "created": found.created, "runs": found.runs}
    return wanted.model_copy(update=kept | {"repeats": max(found.repeats, wanted.repeats)})


def _samples_per_s(result: TrialResult) -> float | None:
    return sustained_per_s(result) if result.blocks and result.status is TrialStatus.OK else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
