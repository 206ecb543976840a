"""The figures of a report: one module per figure, each with a function from a `Reading` to a plotly figure.

Importing this package costs nothing; plotly is imported when a figure is built.
"""

from __future__ import annotations

from autotune.report.figures.batch import FIGURE as BATCH
from autotune.report.figures.budget import FIGURE as BUDGET
from autotune.report.figures.figure import Figure
from autotune.report.figures.history import FIGURE as HISTORY
from autotune.report.figures.importances import FIGURE as IMPORTANCES
from autotune.report.figures.losses import FIGURE as LOSSES
from autotune.report.figures.pareto import FIGURE as PARETO
from autotune.report.figures.phases import FIGURE as PHASES
from autotune.report.figures.predictions import FIGURE as PREDICTIONS
from autotune.report.figures.steps import FIGURE as STEPS
from autotune.report.figures.throughput import FIGURE as THROUGHPUT

__all__ = ["FIGURES", "Figure"]

FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in (THROUGHPUT, PHASES, STEPS, IMPORTANCES, BATCH, PARETO, LOSSES, HISTORY, BUDGET, PREDICTIONS)
}
"""Figures by name, in the order of the report."""
