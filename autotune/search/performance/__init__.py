"""The performance model behind `strategy: auto`: how the time and the memory of a training step depend on its knobs.

A step's time is put together from parts that each depend on few knobs, and that every trial times apart:

    t_step = GA · (t_compute(b, cell) + wait) + t_optimizer(cell)        seconds; GA: accumulation, b: micro-batch size

A *cell* is everything but batch size and accumulation: dtype, layout, compilation, threads, custom knobs, and loader
processes too, which take cores from the step. One trial so predicts every accumulation count. Per cell t_compute is
near a + c·b, which is the prior of its curve in b; what cells have in common is learnt across them, what they have not
is left to a Gaussian process's residual.
"""

from autotune.search.performance.model import PerformanceModel, Prediction
from autotune.search.performance.observation import OBSERVATION, PREDICTED, Observation, observe

__all__ = ["OBSERVATION", "PREDICTED", "Observation", "PerformanceModel", "Prediction", "observe"]
