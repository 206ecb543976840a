"""`replay`: strategies against a recorded table, many seeds of each, in as many processes as there are cores."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from autotune.bench import scores
from autotune.bench.scores import Run
from autotune.bench.session import ALONE, Bench, Crew, record_of, run_search
from autotune.errors import SpecError
from autotune.execution.replay import played
from autotune.interpreter import spawning
from autotune.records import RecordedRun, Table, TrialStatus
from autotune.search import build_space
from autotune.search.gates import violations
from autotune.search.strategies import STRATEGIES
from autotune.spec import Constraint, parse_spec
from autotune.tables import read_table

OnDone = Callable[[int, int], None]
_FEWEST_CONFIGURATIONS = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to replay."""

    strategies: Sequence[str]
    seeds: int
    budget_s: float
    """Budget of each search, at the recorded costs."""
    jobs: int
    crew: Crew = ALONE


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All searches on one table."""

    table: str
    configurations: int
    best_samples_per_s: float
    budget_s: float
    crew: Crew
    random: scores.Array
    """Expected value of found ÷ best at each moment for random search with one worker."""
    runs: Mapping[str, Sequence[Run]]
    """Strategy → one run for each seed."""

    def document(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {
            "table": self.table,
            "configurations": self.configurations,
            "best_samples_per_s": self.best_samples_per_s,
            "budget_s": self.budget_s,
            "crew": dataclasses.asdict(self.crew),
            "strategies": {name: scores.summary(runs, self.random) for name, runs in self.runs.items()},
        }


def check(paths: Sequence[Path], plan: Plan) -> None:
    """Raise what `replay` would raise, before the first search."""
    _check_names(plan.strategies)
    for path in paths:
        bench_of(read_table(path), str(path))


def replay(path: Path, plan: Plan, on_done: OnDone = lambda _done, _planned: None) -> Outcome:
    """Run the searches of `plan` on the table at `path`.

    Raises SpecError for a table that cannot be read or has too few configurations, and for unknown strategies.
    """
    _check_names(plan.strategies)
    table = read_table(path)
    bench = bench_of(table, str(path))
    jobs = [(name, seed) for name in plan.strategies for seed in range(plan.seeds)]
    runs: dict[str, list[Run]] = {name: [] for name in plan.strategies}
    # Not forked: the caller may have started threads, such as those of OpenMP. Ctrl-C ends the processes at once.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read when they import NumPy: one core for each process
        os.environ.setdefault(name, "1")
    prepare = (path, plan.budget_s, plan.crew)
    with spawning() as context, context.Pool(plan.jobs, initializer=_prepare, initargs=prepare) as pool:
        for done, run in enumerate(pool.imap(_search, jobs), start=1):
            runs[run.strategy].append(run)
            on_done(done, len(jobs))
    return Outcome(
        table=table.name,
        configurations=len(table.by_config()),
        best_samples_per_s=bench.best,
        budget_s=plan.budget_s,
        crew=plan.crew,
        random=scores.expected_random(bench, plan.budget_s),
        runs=runs,
    )


def _check_names(names: Sequence[str]) -> None:
    known = sorted(STRATEGIES.keys() - {"factory"})
    possible = {name + suffix for name in known for suffix in ("", "+seeds", "-seeds")}
    for name in names:
        if name not in possible:
            raise SpecError(
                f"--strategy: no strategy '{name}'; there are {', '.join(known)}; gp-seeds is gp without the expert's "
                "seeds, auto+seeds is auto with them"
            )
    if not names:
        raise SpecError(f"--strategy: name at least one of {', '.join(known)}")


def bench_of(table: Table, name: str) -> Bench:
    """The table with its space and the truth about it. Raises SpecError for one that lacks its baseline."""
    spec = parse_spec(table.spec, ".")
    constraints = [constraint for constraint in spec.parsed_constraints() if not constraint.on_knobs]
    truth = {}
    recorded = table.by_config()
    for config, runs in recorded.items():
        speeds = [run.samples_per_s for run in runs if run.status is TrialStatus.OK and run.samples_per_s]
        if speeds and len(speeds) == len(runs) and not any(_breaks(run, table, constraints) for run in runs):
            truth[config] = statistics.fmean(speeds)
    space = build_space(spec, table.facts).restricted_to(recorded)
    measured = any(run.status is TrialStatus.OK for run in recorded.get(space.baseline, ()))
    if len(truth) < _FEWEST_CONFIGURATIONS or not measured:
        needed = f"a measurement of its baseline, and {_FEWEST_CONFIGURATIONS} configurations that meet its constraints"
        raise SpecError(f"{name} holds too little; a replay needs {needed}")
    return Bench(table, space, truth, constraints)


def _breaks(run: RecordedRun, table: Table, constraints: Sequence[Constraint]) -> bool:
    record = record_of(0, played(run), table.facts, 0.0)
    return max(violations(record, constraints), default=0.0) > 0


_bench: Bench | None = None
_budget_s = 0.0
_crew = ALONE


def _prepare(path: Path, budget_s: float, crew: Crew) -> None:
    """Once in each process: read the table."""
    global _bench, _budget_s, _crew
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all processes; the parent ends this one
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("autotune").setLevel(logging.ERROR)
    _bench, _budget_s, _crew = bench_of(read_table(path), str(path)), budget_s, crew


def _search(job: tuple[str, int]) -> Run:
    strategy, seed = job
    if _bench is None:
        raise RuntimeError("_prepare comes first")
    steps = run_search(_bench, strategy, seed=seed, budget_s=_budget_s, crew=_crew)
    return scores.run_of(_bench, steps, strategy=strategy, seed=seed, budget_s=_budget_s)
