"""Trials replayed from a recorded table, with its costs, failures and noise: no process, no training, no waiting."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from autotune.config import TrainConfig
from autotune.errors import EnvironmentFailure
from autotune.execution.backend import OnEvent
from autotune.records import (
    Block,
    Facts,
    Failure,
    Rates,
    RecordedRun,
    Table,
    TrialRequest,
    TrialResult,
    TrialStatus,
)
from autotune.stats import relative_standard_error, throughput, throughput_interval, undisturbed


class ReplayBackend:
    """A backend with a virtual clock: `advance` is called with the seconds that each trial cost."""

    slots = 1
    remarks: Sequence[str] = ()

    def __init__(self, table: Table, advance: Callable[[float], None], seed: int) -> None:
        self._facts = table.facts
        self._runs = table.by_config()
        self._advance = advance
        self._random = random.Random(seed)

    def facts(self, deadline_s: float) -> Facts:
        return self._facts

    def run(self, request: TrialRequest, *, deadline_s: float, on_event: OnEvent = lambda _event: None) -> TrialResult:
        """One of the recorded processes, chosen at random; its blocks are drawn again, with replacement.

        If the request ends hopeless trials early, this one ends after the same block as a real one would. Raises
        EnvironmentFailure for a configuration that the table lacks.

        """
        result = self._played(request)
        if result.wall_s > deadline_s:
            reason = f"not done after {deadline_s:.0f} s; its process was killed"
            result = TrialResult(
                config=request.config,
                status=TrialStatus.TIMEOUT,
                seed=request.seed,
                wall_s=deadline_s,
                failure=Failure(reason=reason),
            )
        self._advance(result.wall_s)
        return result

    def close(self) -> None:
        """Nothing to end."""

    def _played(self, request: TrialRequest) -> TrialResult:
        run = self._random.choice(self._recorded(request.config))
        if not run.blocks:
            return _result(run, request, (), run.status, run.wall_s)
        blocks = tuple(row.block() for row in self._random.choices(run.blocks, k=len(run.blocks)))
        kept = _until_hopeless(blocks, request, _sustained_share(run))
        status = run.status if len(kept) == len(blocks) else TrialStatus.PRUNED
        recorded_s = sum(row.seconds for row in run.blocks)
        wall_s = run.wall_s + sum(block.seconds for block in kept) - recorded_s
        return _result(run, request, kept, status, max(wall_s, 0.0))

    def _recorded(self, config: TrainConfig) -> list[RecordedRun]:
        try:
            return self._runs[config]
        except KeyError as error:
            raise EnvironmentFailure(f"the table holds no run of {config.canonical_json()}") from error


def played(run: RecordedRun) -> TrialResult:
    """The recorded run as it is, without drawing its blocks again."""
    request = TrialRequest(config=run.config, seed=run.seed, time_limit_s=0.0)
    return _result(run, request, tuple(row.block() for row in run.blocks), run.status, run.wall_s)


def _sustained_share(run: RecordedRun) -> float:
    """The sustained rate of the recorded run, divided by the throughput of its blocks."""
    if run.rates is None:
        return 1.0
    return run.rates.sustained_per_s / throughput(undisturbed([row.block() for row in run.blocks]))


def _rates(run: RecordedRun, blocks: Sequence[Block]) -> Rates | None:
    """The recorded rates, scaled so that their ratio to the throughput of the blocks stays the same."""
    if run.rates is None or not blocks:
        return run.rates
    sustained_per_s = throughput(undisturbed(blocks)) * _sustained_share(run)
    error = relative_standard_error(undisturbed(blocks))
    return run.rates.model_copy(
        update={"sustained_per_s": sustained_per_s, "sustained_error": error if len(blocks) > 1 else 1.0}
    )


def _until_hopeless(blocks: tuple[Block, ...], request: TrialRequest, sustained_share: float) -> tuple[Block, ...]:
    if request.hopeless_below is None:
        return blocks
    for count in range(request.min_blocks, len(blocks)):
        interval = throughput_interval(undisturbed(blocks[:count]))
        if interval is not None and interval.high * sustained_share < request.hopeless_below:
            return blocks[:count]
    return blocks


def _result(
    run: RecordedRun, request: TrialRequest, blocks: tuple[Block, ...], status: TrialStatus, wall_s: float
) -> TrialResult:
    return TrialResult.model_construct(
        config=run.config,
        status=status,
        seed=request.seed,
        blocks=blocks,
        warm_up=run.warm_up,
        rates=_rates(run, blocks),
        steps=None,
        first_gradient=None,
        largest_activation=None,
        memory=run.memory,
        start_up_s=run.start_up_s,
        wall_s=wall_s,
        failure=Failure(reason=run.failure) if run.failure else None,
        unreadable_samples=(),
        output_tail="",
    )
