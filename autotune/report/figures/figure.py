"""What a figure is: a picture of one study, and the sentence below it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autotune.report.reading import Reading

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Every module of this folder that draws a figure defines one, named `FIGURE`."""

    name: str
    """Identifies the figure in a page."""
    title: str
    """One line, plain text."""
    build: Callable[[Reading], Plot | None]
    """Returns None if the study has nothing to draw."""
    caption: Callable[[Reading], str]
    """What the figure shows, or why there is none. Plain text that may contain users' text: escape it."""
