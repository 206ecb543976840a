"""How a trial measures: warm-up, blocks, the loader, and the rates that follow from them.

This package uses no torch and no processes: a real trial and a simulated world run the same code through `Loop`,
`Loader` and `Machine`.
"""

from autotune.measure.account import Account
from autotune.measure.disturbance import disturbances
from autotune.measure.draining import drain
from autotune.measure.loader_log import Epoch, Fetch, LoaderLog, Take
from autotune.measure.loading import Loading, loading
from autotune.measure.prefetch_queue import edge_seconds, epoch_seconds, pace
from autotune.measure.protocols import Judge, Loader, Loop, Machine, Report
from autotune.measure.ready import ReadyBatches
from autotune.measure.timing import Measurement
from autotune.measure.warm_up import WarmedUp, has_settled, warm_up

__all__ = [
    "Account",
    "Epoch",
    "Fetch",
    "Judge",
    "Loader",
    "LoaderLog",
    "Loading",
    "Loop",
    "Machine",
    "Measurement",
    "ReadyBatches",
    "Report",
    "Take",
    "WarmedUp",
    "disturbances",
    "drain",
    "edge_seconds",
    "epoch_seconds",
    "has_settled",
    "loading",
    "pace",
    "warm_up",
]
