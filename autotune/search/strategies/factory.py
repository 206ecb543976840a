"""The user's own sampler: any callable that returns an Optuna sampler, Optuna's own classes among them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

from optuna.samplers import BaseSampler

from autotune.errors import SpecError
from autotune.search.strategies.options import build_with
from autotune.search.strategies.strategy import Learning, Strategy, StrategyContext


def build(context: StrategyContext) -> BaseSampler:
    """Called with `strategy.args`, and with `seed` where it takes one."""
    name = context.factory or ""
    made = build_with(_load(name, str(context.folder)), context.args, seed=context.seed)
    if not isinstance(made, BaseSampler):
        raise SpecError(f"strategy.factory: {name} returned a {type(made).__name__}, not an Optuna sampler")
    return made


def _load(name: str, folder: str) -> Callable[..., Any]:
    module_name, _, path = name.partition(":")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module_name)
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except Exception as error:
        raise SpecError(f"strategy.factory: {name}: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise SpecError(f"strategy.factory: {name} is not callable, but a {type(found).__name__}")
    made: Callable[..., Any] = found
    return made


STRATEGY = Strategy(name="factory", build=build, learns_failures_as=Learning.WORST_VALUE)
