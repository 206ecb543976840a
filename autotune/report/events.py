"""`--events FILE`: what a study does, as JSON lines for other tools, each written as it happens.

Every line has `event`, `at` (UTC, ISO 8601) and `elapsed_s` (of the budget), and beside them

| event | has |
|---|---|
| `began` | `study`, `budget_s` |
| `phase` | `phase`: preparing, searching, confirming, testing, soaking |
| `trial_began` | `purpose`, `round`, `config`, `predicted` |
| `trial_block` | `config`; `samples_per_s` and `samples_per_s_ci95` of the trial so far |
| `trial_ended` | `number`, `purpose`, `config`, `status`, `reason`, `samples_per_s`, `peak_memory_bytes`, `wall_s`; |
| | `side`, `side_samples_per_s` of a measurement of one side alone, which has no `samples_per_s` |
| `best` | `config`, `samples_per_s`, `ratio` over the baseline: a trial has become the fastest |
| `ended` | `outcome`: done, interrupted or failed; `best`: path of best.yaml, or null; `verdict`, `ratio`; `reason` |
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from autotune.config import TrainConfig
from autotune.records import Phase, Progress, Running, SearchResult, Standing, TrialRecord
from autotune.search.figures import is_ok, samples_per_s
from autotune.store import speaking_of


class EventLog:
    """Appends events to a file during a study; a context manager. Raises EnvironmentFailure if it cannot write.

    If an exception leaves it, the last line of the file describes it.
    """

    def __init__(self, path: Path | None) -> None:
        """`path`: None if no events were requested."""
        self._path = path
        self._file: IO[str] | None = None
        self._ended = False
        self._elapsed_s = 0.0
        self._phase: Phase | None = None
        self._running: dict[tuple[TrainConfig, float], Running] = {}
        self._best: Standing | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            with speaking_of(self._path):
                self._file = self._path.open("a", encoding="utf-8", buffering=1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        if error is not None and not self._ended:
            self.ended("failed", reason=str(error) or type(error).__name__)
        self._file.close()

    def on_progress(self, progress: Progress) -> None:
        self._elapsed_s = progress.elapsed_s
        if self._phase is None:
            self._write("began", study=progress.study, budget_s=progress.budget_s)
        if progress.phase is not self._phase:
            self._phase = progress.phase
            self._write("phase", phase=progress.phase)
        for running in progress.running:
            self._follow(running)
        self._running = {running.key: running for running in progress.running}
        best = progress.leaders[0] if progress.leaders else None
        if best is not None and best != self._best and progress.baseline is not None:
            self._best = best
            ratio = best.samples_per_s / progress.baseline.samples_per_s
            self._write("best", config=best.config.to_dict(), samples_per_s=best.samples_per_s, ratio=ratio)

    def on_trial(self, record: TrialRecord) -> None:
        result = record.result
        self._elapsed_s = record.elapsed_s
        self._write(
            "trial_ended",
            number=record.number,
            purpose=record.purpose,
            config=result.config.to_dict(),
            status=result.status,
            reason=result.failure.reason if result.failure else None,
            side=result.side,
            side_samples_per_s=result.side_rate.per_s if result.side_rate else None,
            samples_per_s=samples_per_s(record) if is_ok(record) else None,
            peak_memory_bytes=result.memory.peak_bytes if result.memory else None,
            wall_s=result.wall_s,
        )

    def ended(
        self, outcome: str, result: SearchResult | None = None, *, best: Path | None = None, reason: str = ""
    ) -> None:
        """`result`: None if there is none; `best`: where its best.yaml lies."""
        self._ended = True
        document = result.best if result else None
        self._write(
            "ended",
            outcome=outcome,
            best=str(best) if document else None,
            verdict=document["stability"]["verdict"] if document else None,
            ratio=document["speedup"]["ratio"] if document else None,
            reason=reason or None,
        )

    def _follow(self, running: Running) -> None:
        """Write events for a running trial: its start once, then every block."""
        before = self._running.get(running.key)
        if before is None:
            self._write(
                "trial_began",
                purpose=running.purpose,
                round=running.round,
                config=running.config.to_dict(),
                predicted=running.predicted.model_dump() if running.predicted else None,
            )
        if running.samples_per_s is not None and (before is None or before.samples_per_s != running.samples_per_s):
            ends = running.samples_per_s_ci95
            config = running.config.to_dict()
            self._write("trial_block", config=config, samples_per_s=running.samples_per_s, samples_per_s_ci95=ends)

    def _write(self, event: str, **values: Any) -> None:
        if self._file is None or self._path is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"event": event, "at": now, "elapsed_s": round(self._elapsed_s, 3), **values}
        with speaking_of(self._path):
            self._file.write(json.dumps(line) + "\n")
