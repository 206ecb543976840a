"""Whether the figures of the confirmation are known well enough for anyone to rely on them.

No configuration is refused for it; the verdict is `unconfirmed`, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotune.records import Check, TrialResult
from autotune.stats import Comparison, rests_on_disturbed

_WIDEST = 4.0
"""Upper over lower end of the speed-up's 95 % interval; what is wider says hardly more than the direction. Of 300
simulated comparisons of a speed-up of 2 none is wider after two rounds where runs differ by 10 %. Where they differ by
25 %, 45 % are wider after two rounds, 17 % after three, none after five."""
_MOST = 0.5
"""Share of the runs that found no undisturbed block."""


def known_speedup(speedup: Comparison) -> Check:
    """Whether the speed-up is known to more than its direction."""
    interval = speedup.ratio.interval
    width = interval.high / interval.low if interval and interval.low > 0 else math.inf
    passed = interval is None or width <= _WIDEST
    detail = ""
    if interval and not passed:
        within = f"{interval.low:.2f} and {interval.high:.2f}"
        detail = f"the speed-up is somewhere between {within}; give a larger budget"
    return Check(name="known_speedup", passed=passed, value=width if interval else 1.0, limit=_WIDEST, detail=detail)


def undisturbed_runs(runs: Sequence[TrialResult]) -> Check:
    """Whether most confirming runs, of the baseline too, found the machine free for at least two blocks."""
    disturbed = sum(rests_on_disturbed(run.blocks) for run in runs)
    share = disturbed / len(runs) if runs else 0.0
    detail = ""
    if share > _MOST:
        detail = (
            f"other work on the machine disturbed {disturbed} of {len(runs)} confirming runs from beginning to end; "
            "search again when it is idle"
        )
    return Check(name="undisturbed", passed=share <= _MOST, value=share, limit=_MOST, detail=detail)
