"""The study: ask, run, tell; then confirm, and emit."""

from autotune.search.run import Interrupted, look_around, search

__all__ = ["Interrupted", "look_around", "search"]
