"""Finds the fastest stable way to train a given model on given data on given hardware, inside a time budget.

`load` puts a result to work; `search` and `tune` are the command line from Python. Each is imported when it is first
asked for: `import autotune` brings neither PyTorch nor Optuna.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotune.tuned import MeasuredElsewhere, TunedConfig, load

__version__ = "0.1.0"
__all__ = ["MeasuredElsewhere", "TunedConfig", "load"]

_WHERE = {"MeasuredElsewhere": "tuned", "TunedConfig": "tuned", "load": "tuned"}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'autotune' has no attribute '{name}'")
    return getattr(importlib.import_module(f"autotune.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
