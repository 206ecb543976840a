"""Which configurations of the search are measured again, and which are out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from autotune.config import TrainConfig
from autotune.records import Check, TrialRecord, TrialStatus
from autotune.search.earning import by_model, simpler_form
from autotune.search.figures import has_failed
from autotune.search.gates import violations
from autotune.search.ledger import Ledger
from autotune.search.performance import PerformanceModel
from autotune.search.plain import arithmetic
from autotune.search.stability import blames_precision
from autotune.spec import Constraint

_FINALISTS = 3
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
    chosen = others[:_FINALISTS]
    same_batch = [config for config in others if config.effective_batch_size == baseline.effective_batch_size]
    if same_batch and not any(config in same_batch for config in chosen):
        chosen[-1:] = same_batch[:1]
    return chosen


def _gave_up(record: TrialRecord) -> bool:
    return record.result.status is TrialStatus.PRUNED


class Finalists:
    """The finalists of one study, likely best first; one that is refused makes way for the next."""

    def __init__(
        self, ledger: Ledger, baseline: TrainConfig, constraints: Sequence[Constraint], model: PerformanceModel
    ) -> None:
        """`model`: what the search's trials have shown."""
        self._ledger = ledger
        self._baseline = baseline
        self._constraints = constraints
        self._model = model
        self.refused: dict[TrainConfig, list[Check]] = {}
        """Configurations that failed their tests, a constraint or their soak, and the gates that refused them."""
        self._rejected: set[TrainConfig] = set()
        self._now = self._chosen(ledger.measured())
        self.ever = set(self._now)
        """All that are or were finalists."""

    def __iter__(self) -> Iterator[TrainConfig]:
        return iter(list(self._now))

    def __contains__(self, config: TrainConfig) -> bool:
        return config in self._now

    def reject(self, config: TrainConfig, refusing: Sequence[Check] = ()) -> None:
        """`config` is out, and nothing takes its place. `refusing`: the gates that say why, where any do."""
        if refusing:
            self.refused[config] = list(refusing)
        self._rejected.add(config)
        self._now.remove(config)

    def refuse(self, config: TrainConfig, refusing: Sequence[Check]) -> None:
        """`config` is out, and so is what computes the same, or in the same low precision where that is to blame; the
        next fastest take their places."""
        self.refused[config] = list(refusing)
        fit = [record for record in self._ledger.measured() if not self._is_out(record.result.config)]
        self._now = self._chosen(fit)
        self.ever.update(self._now)

    def may_join(self, config: TrainConfig) -> bool:
        """Whether it has neither been a finalist, nor failed, nor is out."""
        failed = any(record.result.config == config and has_failed(record) for record in self._ledger.records)
        return config not in self.ever and not failed and not self._is_out(config)

    def add(self, config: TrainConfig) -> None:
        self._now.append(config)
        self.ever.add(config)

    def _chosen(self, measured: Sequence[TrialRecord]) -> list[TrainConfig]:
        """The fastest of them also without those of its settings that may do nothing."""
        rates = {record.result.config: math.exp(self._model.likely(record.result.config)) for record in measured}
        ranked = sorted(measured, key=lambda record: rates[record.result.config], reverse=True)
        chosen = choose_finalists(ranked, self._baseline, self._constraints)
        simple = simpler_form(chosen[0], rates, self._baseline, by_model(self._model)) if chosen else None
        if simple is None or simple in chosen or self._is_out(simple):
            return chosen
        return [chosen[0], simple, *chosen[1:][-(_FINALISTS - 2) :]]

    def _is_out(self, config: TrainConfig) -> bool:
        return (
            config in self._rejected
            or config in self.refused
            or any(
                (arithmetic(config) == arithmetic(failed) and not self._meets_gates(checks))
                or (config.amp_dtype == failed.amp_dtype != "none" and any(map(blames_precision, checks)))
                for failed, checks in self.refused.items()
            )
        )

    def _meets_gates(self, refusing: Sequence[Check]) -> bool:
        """Whether only constraints refuse: another way to feed the same arithmetic may meet them."""
        return {check.name for check in refusing} <= {constraint.text for constraint in self._constraints}
