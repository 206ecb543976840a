"""Finds the callables that a spec names as `package.module:callable`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autotune.errors import WorkloadError
from autotune.workload.problems import blaming, suggestion


def make_importable(folder: Path) -> None:
    """Make modules in the spec's folder importable, before other modules of the same name, as Python does for a
    script."""
    if sys.path[:1] != [str(folder)]:
        sys.path.insert(0, str(folder))


def load_callable(where: str, name: str) -> Callable[..., Any]:
    """The callable `name`, which the spec gives at `where`, such as `model.factory`.

    Raises WorkloadError when the module cannot be imported, or has no such callable.
    """
    module_name, _, path = name.partition(":")
    found: Any = _import(where, module_name)
    reached = module_name
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            raise WorkloadError(f"{where}: {reached} has no '{attribute}'{suggestion(attribute, dir(found))}")
        found = getattr(found, attribute)
        reached = f"{reached}.{attribute}"
    if not callable(found):
        raise WorkloadError(f"{where}: {name} is not callable, but a {type(found).__name__}")
    result: Callable[..., Any] = found
    return result


def _import(where: str, module_name: str) -> Any:
    with blaming(f"{where}: importing {module_name}"):
        try:
            return importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # Only if the named module itself is missing: a missing import inside it is a failure of that module.
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            message = f"{where}: no module named '{error.name}'; install it, or put it into the spec's folder"
            raise WorkloadError(message) from error
