"""`strategy.args`: keyword arguments of a sampler, checked before the first trial."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from optuna.samplers import BaseSampler

from autotune.errors import SpecError


def build_with(make: Callable[..., BaseSampler], args: Mapping[str, Any], **ours: Any) -> BaseSampler:
    """`make(**ours, **args)`; of `ours` only what `make` knows, and `args` go first.

    Raises SpecError for an argument that `make` does not have, or does not take in this form.
    """
    name_of_it = getattr(make, "__name__", repr(make))
    try:
        known = inspect.signature(make).parameters
    except ValueError as error:  # of some built-in types nobody knows
        raise SpecError(f"strategy.factory: {name_of_it} is no sampler: {error}") from error
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    for name in args:
        if name not in known and not open_ended:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"
            raise SpecError(f"strategy.args.{name}: {name_of_it} has no such argument; {hint}")
    fitting = {name: value for name, value in ours.items() if name in known}
    try:
        return make(**{**fitting, **args})
    except (TypeError, ValueError) as error:
        raise SpecError(f"strategy.args: {name_of_it}: {error}") from error
