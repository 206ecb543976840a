"""Who is out of the race in the search: trials that can no longer win.

Two fresh processes of one configuration differ by more than the blocks of either let expect: memory lies elsewhere, the
machine has moved on. Whoever is judged by few runs is judged with that spread in mind.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from autotune.records import ALIKE, TrialRecord
from autotune.search.figures import samples_per_s
from autotune.search.performance.observation import observe
from autotune.search.performance.repeats import repeats
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
    alike = [record for record in records if record.purpose in ALIKE]
    runs = [(record.result.config, observe(record.result)) for record in alike]
    return repeats(runs).spread(_USUAL_SPREAD, _WORTH_RUNS)


def hopeless_below(fastest: TrialRecord, spread: float) -> float:
    """Samples per second that a new trial's interval has to reach, if it is still to win over the fastest so far.

    Both figures are one run's, so both scatter by `spread`; the fastest's own blocks add to it.
    """
    own = sustained_error(fastest.result)
    scatter = math.sqrt(2 * spread**2 + (own**2 if math.isfinite(own) else 0.0))
    return samples_per_s(fastest) * math.exp(-_SURE * scatter)
