"""Which configurations of the search are measured again."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.config import TrainConfig
from autotune.records import TrialRecord, TrialStatus
from autotune.search.gates import violations
from autotune.spec import Constraint

FINALISTS = 3
_CLEARLY = 0.05
"""Beyond the limit of a constraint, relative: less may be noise of one short run, and the confirmation decides."""


def choose_finalists(
    measured: Sequence[TrialRecord], baseline: TrainConfig, constraints: Sequence[Constraint] = ()
) -> list[TrainConfig]:
    """The three fastest; one of them at the baseline's effective batch size, which cannot fail for learning slower.

    None that its search trial has shown to be clearly outside the constraints.
    """
    measured = [record for record in measured if max(violations(record, constraints), default=0.0) <= _CLEARLY]
    others = [record.result.config for record in measured if record.result.config != baseline and not _gave_up(record)]
    if not others:  # let the best of them show that it is slower
        others = [record.result.config for record in measured if record.result.config != baseline][:1]
    chosen = others[:FINALISTS]
    same_batch = [config for config in others if config.effective_batch_size == baseline.effective_batch_size]
    if same_batch and not any(config in same_batch for config in chosen):
        chosen[-1:] = same_batch[:1]
    return chosen


def _gave_up(record: TrialRecord) -> bool:
    return record.result.status is TrialStatus.PRUNED
