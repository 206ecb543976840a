"""`autotune dashboard`: Optuna's dashboard with the result of a study, only for browsers on this machine."""

from autotune.report.dashboard.furnish import furnish
from autotune.report.dashboard.noted import noted
from autotune.report.dashboard.server import Server

__all__ = ["Server", "furnish", "noted"]
