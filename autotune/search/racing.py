"""Who is out of the race in the search: trials that can no longer win.

Two fresh processes of one configuration differ by more than the blocks of either let expect: memory lies elsewhere, the
machine has moved on. Whoever is judged by few runs is judged with that spread in mind.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

from autotune.records import TrialRecord
from autotune.search.figures import is_ok, samples_per_s
from autotune.stats.sustained import sustained_error

_USUAL_SPREAD = 0.15
"""On the safe side of what small shared machines show; a quiet one shows 0.02, and the study notices as it confirms."""
_WORTH_RUNS = 4
"""How many pairs of runs the usual spread stands for, until the study has measured its own."""
_SURE = 1.96
"""One-sided 97.5 % of a normal: one winner in forty may be lost for one trial's sake."""


def restart_spread(records: Iterable[TrialRecord]) -> float:
    """Standard deviation of the logarithm of throughput between runs of one configuration.

    From the configurations that this study has run more than once, pooled with the usual spread worth four runs.
    """
    runs: dict[str, list[float]] = {}
    for record in records:
        if is_ok(record):
            runs.setdefault(record.result.config.canonical_json(), []).append(math.log(samples_per_s(record)))
    repeated = [logs for logs in runs.values() if len(logs) > 1]
    squares = math.fsum((len(logs) - 1) * statistics.variance(logs) for logs in repeated)
    freedom = sum(len(logs) - 1 for logs in repeated)
    return math.sqrt((_WORTH_RUNS * _USUAL_SPREAD**2 + squares) / (_WORTH_RUNS + freedom))


def hopeless_below(fastest: TrialRecord, spread: float) -> float:
    """Samples per second that a new trial's interval has to reach, if it is still to win over the fastest so far.

    Both figures are one run's, so both scatter by `spread`; the fastest's own blocks add to it.
    """
    own = sustained_error(fastest.result)
    scatter = math.sqrt(2 * spread**2 + (own**2 if math.isfinite(own) else 0.0))
    return samples_per_s(fastest) * math.exp(-_SURE * scatter)
