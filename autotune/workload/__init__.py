"""From a spec to the model, data set, loss and optimizer of a trial.

`prepare` runs once, in a process that is forked for each trial; the `Prepared` that it returns builds them there.
"""

from autotune.workload.facts import workload_facts
from autotune.workload.prepared import Prepared, prepare

__all__ = ["Prepared", "prepare", "workload_facts"]
