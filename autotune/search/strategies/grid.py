"""Every configuration once, from the lowest values up: for spaces that the budget covers."""

from __future__ import annotations

from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from autotune.errors import SpecError
from autotune.search.strategies.strategy import Learning, Strategy, StrategyContext


class _Lowest(BaseSampler):
    """Always proposes the lowest point; the study goes to the nearest one still untried, and so walks the whole space.

    Optuna's own GridSampler would count points that mean one configuration as many.
    """

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> int:
        return 0


def build(context: StrategyContext) -> BaseSampler:
    for name in context.args:
        raise SpecError(f"strategy.args.{name}: a grid takes no arguments")
    if context.space.size == float("inf"):
        raise SpecError("strategy.name: the space is too large for a grid; narrow `search`, or choose auto")
    return _Lowest()


STRATEGY = Strategy(name="grid", build=build, learns_failures_as=Learning.PRUNED)
