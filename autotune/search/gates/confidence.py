"""Whether the figures of the confirmation are known well enough for anyone to rely on them.

No configuration is refused for it; the verdict is `unconfirmed`, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotune.records import Check, TrialResult
from autotune.stats import Comparison

_WIDEST = 4.0
"""Upper over lower end of the speed-up's 95 % interval; what is wider says hardly more than the direction. Of 300
simulated comparisons of a speed-up of 2 none is wider after two rounds where runs differ by 10 %. Where they differ by
25 %, 45 % are wider after two rounds, 17 % after three, none after five."""
_MOST = 0.5
"""Share of the runs of which most blocks were disturbed."""
_OF_A_RUN = 2 / 3
"""Share of its blocks that a run may have measured beside other work. Beside a process that works for two seconds of
four it was below."""


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
    """Whether most confirming runs, of the baseline too, found the machine free for at least a third of their
    blocks."""
    disturbed = sum(map(_is_mostly_disturbed, runs))
    share = disturbed / len(runs) if runs else 0.0
    detail = ""
    if share > _MOST:
        detail = (
            f"other work on the machine disturbed most of {disturbed} of {len(runs)} confirming runs; search again "
            "when it is idle"
        )
    return Check(name="undisturbed", passed=share <= _MOST, value=share, limit=_MOST, detail=detail)


def _is_mostly_disturbed(run: TrialResult) -> bool:
    return sum(bool(block.disturbances) for block in run.blocks) > _OF_A_RUN * len(run.blocks)
