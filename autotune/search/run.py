"""`search`: a study from its spec to its result."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from autotune.config import TrainConfig
from autotune.errors import NoStableConfiguration, WorkloadError
from autotune.execution import Backend, StartBackend, start_all, start_alone
from autotune.records import Facts, SearchResult, TrialRecord, TrialRequest, TrialResult, TrialStatus
from autotune.search.budget import Budget, Clock
from autotune.search.build_space import build_space
from autotune.search.decide.study import StudySoFar
from autotune.search.decide.verdict import STABLE, Verdict
from autotune.search.distinct import DistinctSampler
from autotune.search.emit import best_document
from autotune.search.identity import study_identity
from autotune.search.ledger import Ledger
from autotune.search.loop import Loop
from autotune.search.notes import notes_on
from autotune.search.runner import Listener, TrialRunner
from autotune.search.smaller_baseline import BaselineTooLarge, fitting, out_of_memory, said, smaller
from autotune.search.space import Space
from autotune.search.spent import NothingRuns, facts_of_the_spent
from autotune.search.storage import OpenStudy, open_study, warm_up
from autotune.search.strategies import STRATEGIES, StrategyContext
from autotune.search.telling import sampler_of
from autotune.spec import LoadedSpec
from autotune.spec.durations import usual_duration
from autotune.stats import TIE
from autotune.store import StudyFolder

log = logging.getLogger(__name__)

_WARMING_LIMIT_S = 10.0
NOBODY = Listener()


class Interrupted(Exception):
    """Ctrl-C. `result` is the best so far, already written; None when it came before this session had looked at any."""

    def __init__(self, result: SearchResult | None) -> None:
        super().__init__("interrupted")
        self.result = result


def search(
    loaded: LoadedSpec,
    folder: StudyFolder,
    *,
    fresh: bool = False,
    began_s: float | None = None,
    use_all: bool = False,
    listener: Listener = NOBODY,
    open_study: OpenStudy = open_study,
    start_backend: StartBackend = start_all,
    clock: Clock = time.monotonic,
) -> SearchResult:
    """Run, or resume, the study of `loaded` in `folder`, and write its `best.yaml`.

    `fresh`: begin anew; once the workload has been built, an earlier study is kept aside (`folder.aside`).
    `began_s`: when the command began, on `clock`: the budget bounds the whole command. `use_all`: go on where nothing
    more is to be expected, until the budget is spent. `open_study`: opens Optuna's storage; the default keeps the study
    where it is, else in `study.db`, and `on_server` keeps it elsewhere.

    Raises Interrupted on Ctrl-C (the best so far has been written), WorkloadError, StudyMismatch,
    NoStableConfiguration, EnvironmentFailure.
    """
    _quieten_optuna()
    budget = Budget(loaded.spec.budget, clock, began_s=began_s, use_all=use_all)
    spec_json = loaded.spec.model_dump(mode="json", exclude_none=True)
    folder.open()
    try:
        spent = (() if fresh else folder.read_trials(), budget.total_s, budget.elapsed_s)
        if (known := facts_of_the_spent(*spent)) is not None:
            budget.end()
        backend = start_backend(spec_json, loaded.folder) if known is None else NothingRuns(*spent)
        try:
            with loaded.placing_problems():
                facts = known or _look_around(loaded, backend, budget, open_study)
                identity = study_identity(spec_json, build_space(loaded.spec, facts), facts)
                found = _fitting(loaded, facts, budget, () if fresh else folder.read_trials())
            if fresh:
                folder.start_over()
            while True:
                fitted, space, sampler = found
                study = _Study.open(
                    fitted, folder, backend, budget, facts, space, sampler, identity, listener, open_study
                )
                folder.write_spec(spec_json)
                with contextlib.suppress(BaselineTooLarge):
                    return study.run()
                with loaded.placing_problems():
                    found = _fitting(loaded, facts, budget, folder.read_trials())
        finally:
            backend.close()
    except KeyboardInterrupt:
        raise Interrupted(None) from None
    finally:
        folder.close()


def look_around(
    loaded: LoadedSpec, deadline_s: float, *, runs: bool = False, start_backend: StartBackend = start_alone
) -> tuple[Facts, Space]:
    """What `validate` shows: machine, workload, and the space that would be searched. Trains nothing, or, where it
    `runs`, one optimizer step of the baseline, and of smaller ones as long as it does not fit into memory.

    Raises SpecError for a strategy that cannot be built as well; WorkloadError, with the place in the spec and in the
    user's code, for a step that fails.
    """
    ends_s = time.monotonic() + deadline_s
    backend = start_backend(loaded.spec.model_dump(mode="json", exclude_none=True), loaded.folder)
    try:
        with loaded.placing_problems():
            facts = backend.facts(deadline_s)
            space = build_space(loaded.spec, facts)
            _sampler(loaded, facts, space, Budget(loaded.spec.budget, time.monotonic))
            if runs:
                space = _try_steps(loaded, backend, facts, ends_s)
    finally:
        backend.close()
    return facts, space


def _try_steps(loaded: LoadedSpec, backend: Backend, facts: Facts, ends_s: float) -> Space:
    """The space around the first baseline that fits. Raises WorkloadError where its first optimizer step fails."""
    too_large: set[TrainConfig] = set()
    while True:
        _, space = fitting(loaded.spec, facts, too_large)
        request = TrialRequest(
            config=space.baseline, seed=loaded.spec.training.seed, time_limit_s=0.0, max_steps=1, min_blocks=1
        )
        result = backend.run(request, deadline_s=ends_s - time.monotonic(), on_event=lambda _event: None)
        if result.status is not TrialStatus.OOM or smaller(space.baseline) is None:
            _require_step(result)
            return space
        too_large.add(space.baseline)


def _require_step(result: TrialResult) -> None:
    failure = result.failure
    if result.status is TrialStatus.OK or failure is None:
        return
    message = f"one step with the baseline settings fails{result.status.bracketed}: {failure.reason}"
    if result.status is TrialStatus.OOM:
        message += "; not even one sample fits into memory"
    raise WorkloadError(f"{failure.section}: {message}" if failure.section else message)


def _fitting(
    loaded: LoadedSpec, facts: Facts, budget: Budget, records: Sequence[TrialRecord]
) -> tuple[LoadedSpec, Space, DistinctSampler]:
    """With the largest baseline that is not known from `records` to run out of memory."""
    spec, space = fitting(loaded.spec, facts, out_of_memory(records))
    fitted = dataclasses.replace(loaded, spec=spec)
    return fitted, space, _sampler(fitted, facts, space, budget)


def _sampler(loaded: LoadedSpec, facts: Facts, space: Space, budget: Budget) -> DistinctSampler:
    asked = loaded.spec.strategy
    context = StrategyContext(
        space=space,
        facts=facts,
        seed=asked.seed,
        seconds_left=lambda: budget.search_remaining_s,
        factory=asked.factory,
        args=asked.args,
        folder=loaded.folder,
    )
    return sampler_of(STRATEGIES[asked.name], context, least_gain=0.0 if budget.use_all else math.log(TIE))


def _look_around(loaded: LoadedSpec, backend: Backend, budget: Budget, opening: OpenStudy) -> Facts:
    """The facts; meanwhile, on another core, storage and sampler import what they import lazily."""

    def warm() -> None:
        warm_up(opening)
        STRATEGIES[loaded.spec.strategy.name].warm_up()

    warming = threading.Thread(target=warm, daemon=True)
    warming.start()
    facts = backend.facts(budget.remaining_s)
    warming.join(_WARMING_LIMIT_S)
    return facts


@dataclass(frozen=True, kw_only=True)
class _Study:
    loaded: LoadedSpec
    folder: StudyFolder
    found: StudySoFar
    """The study as this session finds it."""
    ledger: Ledger
    budget: Budget
    backend: Backend
    listener: Listener

    @classmethod
    def open(
        cls,
        loaded: LoadedSpec,
        folder: StudyFolder,
        backend: Backend,
        budget: Budget,
        facts: Facts,
        space: Space,
        sampler: DistinctSampler,
        identity: dict[str, Any],
        listener: Listener,
        open_study: OpenStudy,
    ) -> _Study:
        spec = loaded.spec
        ledger = Ledger(
            folder,
            space,
            sampler,
            STRATEGIES[spec.strategy.name].learns_failures_as,
            identity,
            loaded.folder,
            [constraint for constraint in spec.parsed_constraints() if not constraint.on_knobs],
            open_study,
        )
        budget.carry_over(ledger.elapsed_s)
        found = StudySoFar(
            spec=spec,
            facts=facts,
            space=space,
            budget=budget.now,
            records=tuple(ledger.records),
            seeds=tuple(sampler.planned),
            known_before=len(ledger.records),
        )
        return cls(
            loaded=loaded,
            folder=folder,
            found=found,
            ledger=ledger,
            budget=budget,
            backend=backend,
            listener=listener,
        )

    def run(self) -> SearchResult:
        try:
            document = self.folder.read_best() if self._is_finished() else None
            if document is not None:
                return self._result(document, already_finished=True)
            return self._result(self._searched())
        except KeyboardInterrupt:
            document = self.folder.read_best()
            raise Interrupted(self._result(document, interrupted=True) if document else None) from None
        finally:
            self.ledger.close()

    def _is_finished(self) -> bool:
        more_is_asked = self.budget.use_all and self.budget.search_remaining_s > 0
        return self.ledger.finished_at_s >= self.budget.total_s and not more_is_asked

    def _searched(self) -> dict[str, Any]:
        """The document of the verdict, written."""
        runner = TrialRunner(
            self.loaded.spec.name, self.backend, self.ledger, self.budget, self.found.facts, self.listener
        )
        if message := said(self.found.baseline, self.found.space.too_large):
            runner.publish(message=message)
        loop = Loop(self.found, ledger=self.ledger, runner=runner, budget=self.budget, on_standing=self._write)
        try:
            verdict = loop.run()
        except BaselineTooLarge:
            raise
        except NoStableConfiguration as error:
            error.args = (self._with_places(str(error)),)
            raise
        if verdict is None:
            enough = usual_duration(2 * self.budget.total_s)
            raise NoStableConfiguration(f"the budget ended before the baseline was measured; use at least {enough}")
        if verdict.word == STABLE:
            self.ledger.mark_finished(self.budget.total_s)
        return self._write(verdict)

    def _with_places(self, reason: str) -> str:
        """`reason`, with where in the spec the code is named that failed, and the file with its traceback."""
        last = self.ledger.records[-1] if self.ledger.records else None
        failure = last.result.failure if last else None
        if last is None or failure is None:
            return reason
        placed = self.loaded.at_its_place(f"{failure.section}: {reason}") if failure.section else reason
        return f"{placed}. Full traceback: {self.folder.traceback(last.number)}" if failure.traceback else placed

    def _write(self, verdict: Verdict) -> dict[str, Any]:
        document = best_document(
            verdict,
            study=self.loaded.spec.name,
            strategy=self.loaded.spec.strategy.name,
            ledger=self.ledger,
            budget=self.budget,
            facts=self.found.facts,
            spec_sha256=self.loaded.sha256,
        )
        document["search"]["not_searched"] = [str(dropped) for dropped in self.found.space.dropped]
        document["notes"] = list(notes_on(document, self.ledger.records, self.found.baseline, self.found.facts))
        self.folder.write_best(document)
        return document

    def _result(
        self, document: dict[str, Any], *, already_finished: bool = False, interrupted: bool = False
    ) -> SearchResult:
        return SearchResult(
            folder=str(self.folder.path),
            best=document,
            facts=self.found.facts,
            dropped=tuple(str(dropped) for dropped in self.found.space.dropped),
            notes=(
                *notes_on(
                    document, self.ledger.records, self.found.baseline, self.found.facts, interrupted=interrupted
                ),
                *(() if already_finished else self.backend.remarks),
            ),
            already_finished=already_finished,
        )


def _quieten_optuna() -> None:
    """Its log lines go to the study's log with all others, not to the screen."""
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
