"""Which configurations of the search are measured again, and which are out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autotune.config import TrainConfig
from autotune.records import Check, TrialRecord, TrialStatus
from autotune.search.decide.checks import blames_precision
from autotune.search.decide.study import StudySoFar
from autotune.search.decide.timetable import Timetable
from autotune.search.earning import by_model, simpler_form, worth_confirming
from autotune.search.figures import has_failed
from autotune.search.gates import meets
from autotune.search.performance import PerformanceModel
from autotune.search.plain import arithmetic
from autotune.search.policy import EVEN, LITTLE
from autotune.spec import Constraint

_FINALISTS = 3
_CLEARLY = 0.05
"""Beyond the limit of a constraint, relative: less may be noise of one short run, and the confirmation decides."""


def choose_finalists(
    measured: Sequence[TrialRecord], baseline: TrainConfig, constraints: Sequence[Constraint] = ()
) -> list[TrainConfig]:
    """The three fastest. One of them has the baseline's effective batch size, so it cannot fail for learning slower.

    Leaves out what its search trial has shown to be clearly outside the constraints.
    """
    measured = [record for record in measured if meets(record, constraints, within=_CLEARLY)]
    others = [record.result.config for record in measured if record.result.config != baseline and not _gave_up(record)]
    if not others:  # let the best of them show that it is slower
        others = [record.result.config for record in measured if record.result.config != baseline][:1]
    return _within(others, baseline)


def _within(ranked: Sequence[TrainConfig], baseline: TrainConfig) -> list[TrainConfig]:
    """The first three; the last of them makes way for one of the baseline's effective batch size, if none is."""
    chosen = list(ranked[:_FINALISTS])
    same_batch = [config for config in ranked if _is_of_same_batch(config, baseline)]
    if same_batch and not any(config in same_batch for config in chosen):
        chosen[-1:] = same_batch[:1]
    return chosen


def _is_of_same_batch(config: TrainConfig, baseline: TrainConfig) -> bool:
    return config.effective_batch_size == baseline.effective_batch_size


def _gave_up(record: TrialRecord) -> bool:
    return record.result.status is TrialStatus.PRUNED


@dataclass(frozen=True, kw_only=True)
class Finalists:
    """The finalists of one study, the likely best first. If one is refused, the next takes its place."""

    model: PerformanceModel
    """What the search's trials had shown when they were chosen."""
    now: tuple[TrainConfig, ...] = ()
    ever: tuple[TrainConfig, ...] = ()
    """All that are or were finalists."""
    left_out: tuple[TrainConfig, ...] = ()
    """The fastest that were not expected to be better, while runs seemed to differ little."""
    rejected: frozenset[TrainConfig] = frozenset()
    refused: Mapping[TrainConfig, Sequence[Check]] = field(default_factory=dict, hash=False)
    """Configurations that failed their tests, a constraint or their soak, and the gates that refused them."""

    @classmethod
    def of(cls, study: StudySoFar) -> Finalists:
        return cls(model=study.model)._chosen(study, study.measured)

    def rejecting(self, config: TrainConfig, refusing: Sequence[Check] = ()) -> Finalists:
        """Without `config`; nothing takes its place. `refusing`: the gates that say why, if any."""
        return dataclasses.replace(
            self,
            now=tuple(each for each in self.now if each != config),
            rejected=self.rejected | {config},
            refused={**self.refused, config: refusing} if refusing else self.refused,
        )

    def refusing(self, study: StudySoFar, config: TrainConfig, checks: Sequence[Check]) -> Finalists:
        """Without `config` and what computes the same, or what has the same low precision if that is to blame. The next
        fastest take their places. `checks`: the gates that say why."""
        return dataclasses.replace(self, refused={**self.refused, config: checks})._chosen_anew(study)

    def without_failed(self, study: StudySoFar, config: TrainConfig) -> Finalists:
        """Without `config`, whose run failed. If it was the last one, the next fastest take its place."""
        left = self.rejecting(config)
        return left if left.now else left._chosen_anew(study)

    def without_soaked(self, study: StudySoFar, config: TrainConfig, refusing: Sequence[Check]) -> Finalists:
        """Without `config`, which its soak refused. What computes the same may stay."""
        return dataclasses.replace(self.without_failed(study, config), refused={**self.refused, config: refusing})

    def _chosen_anew(self, study: StudySoFar) -> Finalists:
        fit = [record for record in study.measured if not self._is_out(study, record.result.config)]
        return self._chosen(study, fit)

    def adding(self, *configs: TrainConfig) -> Finalists:
        return dataclasses.replace(self, now=(*self.now, *configs), ever=(*self.ever, *configs))

    def with_left_out(self, study: StudySoFar) -> Finalists:
        """With those that were left out, where runs are known by now to differ too much for that: the first two may
        have agreed by chance."""
        if study.model.noise <= EVEN:
            return self
        back = [config for config in self.left_out if self.may_join(study, config)]
        return dataclasses.replace(self.adding(*back), left_out=())

    def may_join(self, study: StudySoFar, config: TrainConfig) -> bool:
        """Whether it has not been a finalist, has not failed and is not out."""
        failed = any(record.result.config == config and has_failed(record) for record in study.records)
        return config not in self.ever and not failed and not self._is_out(study, config)

    def _chosen(self, study: StudySoFar, measured: Sequence[TrialRecord]) -> Finalists:
        """The fastest; and the best also without those of its settings that may have no effect."""
        rates = {record.result.config: math.exp(self.model.likely(record.result.config)) for record in measured}
        ranked = sorted(measured, key=lambda record: rates[record.result.config], reverse=True)
        chosen = choose_finalists(ranked, study.baseline, study.constraints)
        simple = simpler_form(chosen[0], rates, study.baseline, by_model(self.model)) if chosen else None
        if simple is not None and simple not in chosen and not self._is_out(study, simple):
            chosen = _within([chosen[0], simple, *chosen[1:]], study.baseline)
        worth = self._worth_confirming(study, chosen)
        return dataclasses.replace(
            self,
            now=tuple(worth),
            ever=tuple(dict.fromkeys([*self.ever, *worth])),
            left_out=tuple(config for config in chosen if config not in worth),
        )

    def _worth_confirming(self, study: StudySoFar, chosen: Sequence[TrainConfig]) -> list[TrainConfig]:
        """Those of `chosen` that are worth confirming; one with the baseline's effective batch size stays. All of them
        if time is short, because one that needs no tests may have to replace the best, or if runs differ so much that
        trials tell little."""
        is_short = Timetable(study).needed_s(chosen) > study.budget.remaining_s
        if not chosen or study.budget.use_all or is_short or self.model.noise > EVEN:
            return list(chosen)
        worth = worth_confirming(chosen, study.baseline, by_model(self.model), LITTLE)
        if any(_is_of_same_batch(config, study.baseline) for config in worth):
            return worth
        return [*worth, *[config for config in chosen if _is_of_same_batch(config, study.baseline)][:1]]

    def _is_out(self, study: StudySoFar, config: TrainConfig) -> bool:
        return (
            config in self.rejected
            or config in self.refused
            or any(
                (arithmetic(config) == arithmetic(failed) and not _meets_gates(study, checks))
                or (config.amp_dtype == failed.amp_dtype != "none" and any(map(blames_precision, checks)))
                for failed, checks in self.refused.items()
            )
        )


def _meets_gates(study: StudySoFar, refusing: Sequence[Check]) -> bool:
    """Whether only constraints refuse it. Another way to feed the same arithmetic may meet them."""
    return {check.name for check in refusing} <= {constraint.text for constraint in study.constraints}
