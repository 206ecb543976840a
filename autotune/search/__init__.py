"""The study: ask, run, tell; then confirm, and emit; and, later, look whether the promise holds."""

from autotune.search.build_space import build_space
from autotune.search.identity import study_identity
from autotune.search.run import Interrupted, look_around, search
from autotune.search.space import Space
from autotune.search.verify import DEFAULT_BUDGET_S, verify

__all__ = [
    "DEFAULT_BUDGET_S",
    "Interrupted",
    "Space",
    "build_space",
    "look_around",
    "search",
    "study_identity",
    "verify",
]
