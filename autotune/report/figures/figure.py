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
    """Every module of this folder that draws holds one, named `FIGURE`."""

    name: str
    """Identifies it in a page."""
    title: str
    """One line, plain text."""
    build: Callable[[Reading], Plot | None]
    """None where the study has nothing to draw."""
    caption: Callable[[Reading], str]
    """What it shows, in plain text that may hold users' words: escape it. Where nothing is drawn, why not."""
