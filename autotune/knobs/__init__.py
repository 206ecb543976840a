"""The knobs, one file each. A new file with a `KNOB` of the name of a `TrainConfig` field is found by itself."""

from __future__ import annotations

import importlib
import pkgutil

from autotune.config import KNOB_NAMES
from autotune.knobs.knob import Expectation, Knob, KnobContext

__all__ = ["KNOBS", "Expectation", "Knob", "KnobContext"]


def _discover() -> tuple[Knob, ...]:
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    knobs = {module.KNOB.name: module.KNOB for module in modules if hasattr(module, "KNOB")}
    return tuple(knobs[name] for name in KNOB_NAMES)


KNOBS: tuple[Knob, ...] = _discover()
"""All knobs, in the order of `TrainConfig`."""
