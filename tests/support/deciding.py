"""Studies so far, made by hand: on a machine without noise, as small as a rule needs them."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from autotune.config import TrainConfig
from autotune.records import Facts, Purpose, TrialRecord, TrialRequest, TrialResult, TrialStatus
from autotune.search import build_space
from autotune.search.budget import BudgetNow
from autotune.search.decide.confirming import Confirming
from autotune.search.decide.finalists import Finalists
from autotune.search.decide.session import Confirmation, Exploring, Session, Stage
from autotune.search.decide.study import StudySoFar
from autotune.search.earning import by_model
from autotune.search.space import Space
from autotune.spec import Spec, parse_spec
from support.facts import cpu_facts
from support.simulation import Clock, FormulaBackend

BUDGET_S, ELAPSED_S = 300.0, 100.0
SOAK_STEPS = 20
BASE = TrainConfig(micro_batch_size=32, grad_accum_steps=4, num_threads=4)
TWO, FOUR = (BASE.replace(num_workers=workers, prefetch_factor=2) for workers in (2, 4))
"""Other loading, the same arithmetic: nothing to be tested."""
BF16 = BASE.replace(amp_dtype="bf16")
BF16_TWO = TWO.replace(amp_dtype="bf16")
_SPEC: dict[str, Any] = {
    "model": {"timm": "resnet18"},
    "data": {"synthetic": {"image_size": 64}},
    "training": {"effective_batch_size": 128},
    "budget": "5m",
    "stability": {"soak_steps": SOAK_STEPS},
    "search": {
        "micro_batch_size": 32,
        "num_workers": [0, 2, 4],
        "prefetch_factor": 2,
        "pin_memory": False,
        "amp_dtype": ["none", "bf16"],
        "memory_format": "contiguous",
        "compile": "none",
        "fused_optimizer": False,
        "num_threads": 4,
        "activation_checkpointing": False,
    },
}
_TRIAL_S = 4.0


@functools.cache
def _place(sections: str) -> tuple[Spec, Facts, Space]:
    spec, facts = parse_spec(_SPEC | json.loads(sections), "."), cpu_facts()
    return spec, facts, build_space(spec, facts)


def ran(
    config: TrainConfig,
    samples_per_s: float | TrialStatus,
    purpose: Purpose = Purpose.SEARCH,
    *,
    seed: int = 0,
    round_number: int | None = None,
    elapsed_s: float = 0.0,
    cut_short: bool = False,
    disturbed: bool = False,
    **result: Any,
) -> TrialRecord:
    """A run, or how it failed. `disturbed`: beside other work all the time; `result`: what else differs."""
    made = _result(config, samples_per_s, purpose, seed)
    if disturbed:
        blocks = tuple(block.model_copy(update={"disturbances": ("contended",)}) for block in made.blocks)
        made = made.model_copy(update={"blocks": blocks})
    return TrialRecord(
        number=0,
        purpose=purpose,
        round=round_number,
        elapsed_s=elapsed_s,
        cut_short=cut_short,
        started="",
        result=made.model_copy(update=result),
        environment=cpu_facts(),
    )


@functools.cache
def _result(config: TrainConfig, samples_per_s: float | TrialStatus, purpose: Purpose, seed: int) -> TrialResult:
    backend = FormulaBackend(Clock(), cpu_facts(), lambda _config: samples_per_s, noise=0.0, busy=0.0)
    watched, soak = purpose in (Purpose.PROBE, Purpose.REFERENCE), purpose is Purpose.SOAK
    request = TrialRequest(
        config=config,
        seed=seed,
        time_limit_s=0.0 if soak else _TRIAL_S,
        min_steps=SOAK_STEPS if soak else 0,
        max_steps=SOAK_STEPS if watched else None,
        watch_training=watched,
    )
    return backend.run(request, deadline_s=BUDGET_S, on_event=lambda _event: None)


def searched(rates: Mapping[TrainConfig, float]) -> list[TrialRecord]:
    """The trials of a search, the baseline's first."""
    return [ran(each, rate, Purpose.BASELINE if each == BASE else Purpose.SEARCH) for each, rate in rates.items()]


def in_rounds(rates: Mapping[TrainConfig, Sequence[float | None]]) -> list[TrialRecord]:
    """Runs of the confirmation: a rate for each round; None: it did not run in it."""
    most = max(map(len, rates.values()))
    return [
        ran(config, rate, Purpose.CONFIRM, seed=number + 1, round_number=number + 1)
        for number in range(most)
        for config, each in rates.items()
        if number < len(each) and (rate := each[number]) is not None
    ]


def watched_runs(config: TrainConfig, **probe: Any) -> list[TrialRecord]:
    """The reference and the probe of one that computes otherwise. `probe`: what differs in its result."""
    plain = config.replace(amp_dtype="none")
    return [ran(plain, 1000.0, Purpose.REFERENCE), ran(config, 1000.0, Purpose.PROBE, **probe)]


def so_far(
    records: Iterable[TrialRecord] = (),
    *,
    left_s: float | None = None,
    sections: Mapping[str, Any] | None = None,
    **changes: Any,
) -> StudySoFar:
    """`left_s`: seconds until the last process has to be gone; None: two thirds of the budget. `sections`: of the spec,
    instead of the usual ones; `changes`: of the study so far."""
    spec, facts, space = _place(json.dumps(sections or {}))
    budget = BudgetNow(total_s=BUDGET_S, elapsed_s=ELAPSED_S)
    if left_s is not None:
        budget = BudgetNow(total_s=BUDGET_S, elapsed_s=budget.elapsed_s + budget.remaining_s - left_s)
    return StudySoFar(
        **{
            "spec": spec,
            "facts": facts,
            "space": space,
            "budget": budget,
            "records": _numbered(records),
            "seeds": (space.baseline,),
            **changes,
        }
    )


def _numbered(records: Iterable[TrialRecord]) -> tuple[TrialRecord, ...]:
    searching = (Purpose.BASELINE, Purpose.SEED, Purpose.SEARCH)
    return tuple(
        record.model_copy(update={"number": number, "optuna_trial": number if record.purpose in searching else None})
        for number, record in enumerate(records)
    )


def confirming(study: StudySoFar, *finalists: TrainConfig) -> Confirming:
    """`finalists`: instead of those that would be chosen."""
    chosen = Finalists(model=study.model, now=finalists, ever=finalists) if finalists else Finalists.of(study)
    return Confirming(study=study, finalists=chosen, expected=by_model(study.model))


def session_at(study: StudySoFar, stage: Stage, *finalists: TrainConfig) -> Session:
    """A session whose confirmation has begun. `finalists`: as of `confirming`."""
    now = confirming(study, *finalists)
    rounds = max((record.round or 0 for record in study.records), default=0)
    return Session(
        stage=stage,
        confirmation=Confirmation(finalists=now.finalists, expected=now.expected, expected_at=rounds),
    )


def beginning(study: StudySoFar) -> Session:
    return Session(stage=Exploring.of(study))
