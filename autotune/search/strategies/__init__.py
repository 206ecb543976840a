"""The strategies, one file each. A new file with a `STRATEGY` is found by itself, under its name."""

from __future__ import annotations

import importlib
import pkgutil

from autotune.search.strategies.strategy import Learning, Strategy, StrategyContext

__all__ = ["STRATEGIES", "Learning", "Strategy", "StrategyContext"]


def _discover() -> dict[str, Strategy]:
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    return {module.STRATEGY.name: module.STRATEGY for module in modules if hasattr(module, "STRATEGY")}


STRATEGIES: dict[str, Strategy] = _discover()
