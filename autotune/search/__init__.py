"""The study: ask, run, tell; then confirm, and emit; and, later, look whether the promise holds."""

from autotune.search.run import Interrupted, look_around, search
from autotune.search.verify import DEFAULT_BUDGET_S, verify

__all__ = ["DEFAULT_BUDGET_S", "Interrupted", "look_around", "search", "verify"]
