"""The study: ask, run, tell; then confirm, and emit; and, later, look whether the promise holds.

`autotune.search(spec)`, the function of `autotune.api`, has the name of this package: Python binds a package to its
name in the package above, so the package itself is callable.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

from autotune.search.build_space import build_space
from autotune.search.identity import study_identity
from autotune.search.run import Interrupted, look_around, search
from autotune.search.runner import Listener
from autotune.search.space import Space
from autotune.search.storage import on_server, open_study
from autotune.search.verify import DEFAULT_BUDGET_S, verify

__all__ = [
    "DEFAULT_BUDGET_S",
    "Interrupted",
    "Listener",
    "Space",
    "build_space",
    "look_around",
    "on_server",
    "open_study",
    "search",
    "study_identity",
    "verify",
]


class _CallablePackage(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """See `autotune.api.search`."""
        return importlib.import_module("autotune.api").search(*arguments, **options)


sys.modules[__name__].__class__ = _CallablePackage
