"""`autotune dashboard`: Optuna's own dashboard on a study, as it came out, for this machine's browser alone."""

from autotune.report.dashboard.furnish import furnish
from autotune.report.dashboard.noted import noted
from autotune.report.dashboard.server import Server

__all__ = ["Server", "furnish", "noted"]
