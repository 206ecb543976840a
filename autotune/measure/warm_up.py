"""Before the first block: train until the step time has settled, independent of the loader."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from autotune.measure.protocols import Loader, Loop
from autotune.records import TrialRequest, WarmUp

_SHARE, _LONGEST_SHARE = 0.4, 0.6
"""Shares of the time limit for a warm-up: normally, and if its steps still become faster or are too few."""
_FEWEST_TO_SETTLE = 3
"""Steps: the first one never counts."""
_SETTLED, _SETTLED_AT_BEST = 0.15, 0.05
"""Largest relative difference that counts as settled: between two consecutive steps, and between two stretches of many
steps."""
_STRETCH_SHARE = 0.04
"""Share of the time limit that a stretch of steps must last to show that step times have settled."""
_STEPS_FOR_PACE = 8
"""Fewest steps for the pace; half of all steps if that is more."""
_SLOW = 4.0
"""Times the median of the steps."""


@dataclass(frozen=True, kw_only=True)
class WarmedUp:
    """How a warm-up went."""

    record: WarmUp
    step_s: float
    """Mean seconds of the last steps, without waiting for data."""
    wall_s: float
    """The same with waiting for data."""
    began_s: float
    """The end of the first step: compilation counts against the budget, but not against this trial's time limit."""
    steps_between_slow: int
    """Number of steps per slow step, which took several times as long as the others; 0 if there were none."""


def warm_up(loop: Loop, loader: Loader, request: TrialRequest) -> WarmedUp:
    """Train until the step time (without waiting for data) has settled, or the warm-up's share of the time is over."""
    walls: list[float] = []
    times: list[float] = []
    began_s = loop.clock()
    settled = False
    most = request.max_steps or math.inf
    while not settled and loop.steps_done < most:
        spent_s = loop.clock() - began_s
        share = _LONGEST_SHARE if len(times) < _FEWEST_TO_SETTLE or _becomes_faster(times) else _SHARE
        if len(times) >= 2 and spent_s >= share * request.time_limit_s:
            break
        wall_s, waited_s = _step(loop, loader)
        walls.append(wall_s)
        times.append(max(wall_s - waited_s, 0.0))
        if len(times) == 1:
            began_s = loop.clock()
        settled = has_settled(times, _STRETCH_SHARE * request.time_limit_s, walls)
    return WarmedUp(
        record=WarmUp(
            steps=len(walls),
            seconds=math.fsum(walls),
            first_step_s=walls[0],
            first_wait_s=walls[0] - times[0],
            settled=settled,
        ),
        step_s=_pace_s(times),
        wall_s=_pace_s(walls),
        began_s=began_s,
        steps_between_slow=_steps_between_slow(times[1:]),
    )


def _pace_s(seconds: Sequence[float]) -> float:
    """Mean of the last steps; the first step counts only if it is the only one."""
    last = max(_STEPS_FOR_PACE, len(seconds) // 2)
    return statistics.fmean(seconds[1:][-last:] or seconds)


def _steps_between_slow(times: Sequence[float]) -> int:
    if len(times) < _STEPS_FOR_PACE:
        return 0
    slow = sum(time_s > _SLOW * statistics.median(times) for time_s in times)
    return round(len(times) / slow) if slow else 0


def _step(loop: Loop, loader: Loader) -> tuple[float, float]:
    """Seconds of one optimizer step, and how many of them it waited for batches that were not ready."""
    first = loader.read().taken
    loop.begin(1)
    before_s = loop.clock()
    loop.optimizer_step()
    loop.synchronise()
    wall_s = loop.clock() - before_s
    log = loader.read()
    return wall_s, math.fsum(log.takes[take].waited_s for take in range(first, log.taken) if not log.was_loaded(take))


def _becomes_faster(times: Sequence[float]) -> bool:
    """Whether the last third of the steps took clearly less time than the third before; the first step never counts."""
    third = (len(times) - 1) // 3
    if third < 1:
        return False
    return math.fsum(times[-third:]) < (1 - _SETTLED_AT_BEST) * math.fsum(times[-2 * third : -third])


def has_settled(times: Sequence[float], least_s: float = 0.0, walls: Sequence[float] | None = None) -> bool:
    """Whether step times have stopped falling: the last stretch of steps took about as long as the stretch before it.

    Stretches of 1, 2, 4, … steps are tried, because step times may alternate. Stretches shorter than `least_s` seconds
    cannot show a slow trend, such as clocks that ramp up. With more steps, the two have to be closer. The first step
    never counts: it compiles, searches for convolution algorithms and grows the allocator. `walls`: wall time of the
    steps, if it is more than the times that are compared.
    """
    walls = times if walls is None else walls
    stretch = 1
    while len(times) > 2 * stretch:
        last = math.fsum(times[-stretch:])
        earlier = math.fsum(times[-2 * stretch : -stretch])
        limit = max(_SETTLED / math.sqrt(stretch), _SETTLED_AT_BEST)
        if math.fsum(walls[-stretch:]) >= least_s and abs(last - earlier) < limit * earlier:
            return True
        stretch *= 2
    return False
