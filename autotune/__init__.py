"""Finds the fastest stable way to train a given model on given data on given hardware, inside a time budget.

`load` uses a result in training code; `search` and `tune` are the command line from Python. Each is imported at its
first use: `import autotune` imports neither PyTorch nor Optuna.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotune.api import search, tune
    from autotune.records import SearchResult
    from autotune.spec import Spec
    from autotune.tuned import MeasuredElsewhere, TunedConfig, load

__version__ = "0.1.0"
__all__ = ["MeasuredElsewhere", "SearchResult", "Spec", "TunedConfig", "load", "search", "tune"]

_WHERE = {
    "MeasuredElsewhere": "tuned",
    "SearchResult": "records",
    "Spec": "spec",
    "TunedConfig": "tuned",
    "load": "tuned",
    "tune": "api",
}


def __getattr__(name: str) -> Any:
    if name == "search":  # the package of that name is callable
        return importlib.import_module("autotune.search")
    if name not in _WHERE:
        raise AttributeError(f"module 'autotune' has no attribute '{name}'")
    return getattr(importlib.import_module(f"autotune.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
