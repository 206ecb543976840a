"""Checks whether an export trains as fast as the study's own trials: both run repeatedly, in new processes."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from autotune.config import TrainConfig
from autotune.errors import SpecError
from autotune.execution import StartBackend, start_alone
from autotune.export import TARGETS, export, read_source
from autotune.export.write import write
from autotune.interpreter import environment, script_command, trial_command
from autotune.records import ExportVerification
from autotune.search.budget import Clock
from autotune.search.duel import DoesNotRun, Duel, Measure, Trials
from autotune.search.ledger import read_origin
from autotune.spec import parse_spec
from autotune.stats import Comparison, Outcome
from autotune.store import StudyFolder, read_spec_to_run

SCRIPTS = ("torch",)
"""Targets whose export is a training script that prints its throughput as JSON at the end, and accepts `--seconds` and
`--seed`."""
HARNESSED = ("accelerate", "lightning", "transformers")
"""Targets whose export is part of a training loop; `autotune.trial.exported` has one for each."""
_RESERVE_S = 1.0
_FEWEST_ROUNDS = 2
_WORTH_A_LOOK = 0.97
"""Share of a trial's throughput: an export whose whole interval is below it is slower than the trial."""


def verify_export(
    folder: StudyFolder,
    target: str,
    *,
    budget_s: float,
    began_s: float | None = None,
    on_message: Callable[[str], None] = lambda _message: None,
    start_backend: StartBackend = start_alone,
    clock: Clock = time.monotonic,
) -> ExportVerification:
    """Alternate runs of the export to `target` and trials of the same configuration, until the answer is clear or the
    budget is spent.

    Raises SpecError for a target that cannot run here, or if the study has no result yet; WorkloadError, StudyMismatch,
    EnvironmentFailure.
    """
    ends_s = (clock() if began_s is None else began_s) + budget_s - _RESERVE_S
    document = folder.read_best()
    if document is None:
        raise SpecError(f"{folder.path} has no result yet; run the search again")
    _require_runnable(target)
    ranks = TrainConfig.from_dict(document["config"]).world_size
    if ranks > 1:
        raise SpecError(f"--export: this study trains on {ranks} ranks, and exports are run in one process only")
    source = read_source(folder.path)
    paths = write(export(source, target), source, None)
    spec_json = read_spec_to_run(folder)
    folder.open()
    try:
        origin = read_origin(folder)
        backend = start_backend(spec_json, origin)
        try:
            facts = backend.facts(ends_s - clock())
            trial = Trials(folder, backend, facts).of(TrainConfig.from_dict(document["config"]), "the configuration")
            if target in SCRIPTS:
                through = script_run(paths[0], origin)
            else:
                through = harness_run(target, paths, spec_json, origin, source.config)
            duel = Duel(through, trial, clock=clock, ends_s=ends_s)
            duel.run(parse_spec(spec_json, origin).training.seed, lambda: on_message(_standing(duel)))
        finally:
            backend.close()
    finally:
        folder.close()
    return _verification(document["study"], document["measured"]["samples_per_s"], duel)


def script_run(script: Path, folder: Path) -> Measure:
    """Runs of `script`, whose last line is a JSON object with `samples_per_s`; modules in `folder` are importable."""

    def measure(seed: int, limit_s: float, deadline_s: float) -> float:
        command = script_command(script, "--seconds", f"{limit_s:.2f}", "--seed", seed)
        return _run(command, str(script), "", folder, deadline_s)

    return measure


def harness_run(
    target: str, files: Sequence[Path], spec_json: dict[str, Any], folder: Path, config: TrainConfig
) -> Measure:
    """Runs of the study's workload through `files`, as exported to `target`."""
    job = {
        "target": target,
        "files": {path.name: str(path) for path in files},
        "expresses": sorted(TARGETS[target].expresses),
        "spec": spec_json,
        "folder": str(folder),
        "config": config.to_dict(),
    }

    def measure(seed: int, limit_s: float, deadline_s: float) -> float:
        task = json.dumps(job | {"seconds": limit_s, "seed": seed})
        return _run(trial_command("exported"), f"training through the export to {target}", task, None, deadline_s)

    return measure


def _require_runnable(target: str) -> None:
    if target not in (*SCRIPTS, *HARNESSED):
        raise SpecError(f"--export: {target} cannot be run here; {', '.join((*SCRIPTS, *HARNESSED))} can")
    if target in HARNESSED and importlib.util.find_spec(target) is None:
        raise SpecError(f"--export: {target} is not installed; pip install '.[integrations]'")


def _run(command: Sequence[str], name: str, task: str, folder: Path | None, deadline_s: float) -> float:
    """One fresh process; modules in `folder` are importable. `name`: for messages; `task`: for its stdin."""
    pipe, variables = subprocess.PIPE, environment(first=folder)
    process = subprocess.Popen(
        command, env=variables, stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    try:
        output, errors = process.communicate(task, timeout=deadline_s)
    except subprocess.TimeoutExpired:
        raise DoesNotRun(f"{name} took longer than the {deadline_s:.0f} s that were left") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return _read(name, process.returncode, output, errors)


def _read(name: str, code: int, output: str, errors: str) -> float:
    if code:
        last = (errors.strip().splitlines() or ["no message"])[-1]
        raise DoesNotRun(f"{name} ended with exit code {code}: {last}")
    try:
        return float(json.loads(output.strip().splitlines()[-1])["samples_per_s"])
    except (IndexError, KeyError, TypeError, ValueError):
        raise DoesNotRun(f"{name} does not end with its samples_per_s as JSON; export it again") from None


def judge(comparison: Comparison | None, rounds: int) -> tuple[bool, str]:
    """Whether the export trains as fast as the trials, and why."""
    if comparison is None or rounds < _FEWEST_ROUNDS:
        return False, "the budget was too short for two rounds; give a larger --budget"
    interval = comparison.ratio.interval
    if interval is not None and interval.high < _WORTH_A_LOOK:
        return False, "it is slower than the trials that were measured"
    if comparison.outcome is Outcome.AMBIGUOUS and (interval is None or interval.low < _WORTH_A_LOOK):
        return False, "the rounds cannot tell whether it is as fast as the trials; give a larger --budget"
    return True, "it trains as fast as the trials that were measured"


def _verification(study: str, promised: float, duel: Duel) -> ExportVerification:
    comparison, rate = duel.comparison(), duel.samples_per_s()
    holds, reason = (False, duel.failure) if duel.failure else judge(comparison, duel.rounds)
    interval = comparison.ratio.interval if comparison else None
    return ExportVerification(
        study=study,
        holds=holds,
        reason=reason,
        promised_samples_per_s=promised,
        samples_per_s=rate.value if rate else None,
        ratio=comparison.ratio.value if comparison else None,
        ratio_ci95=(interval.low, interval.high) if interval else None,
        rounds=duel.rounds,
    )


def _standing(duel: Duel) -> str:
    comparison = duel.comparison()
    if comparison is None:
        return ""
    ends = comparison.ratio.interval
    within = f" ({ends.low:.3f} to {ends.high:.3f})" if ends else ""
    return f"round {duel.rounds}: {comparison.ratio.value:.3f} of a trial's throughput{within}"
