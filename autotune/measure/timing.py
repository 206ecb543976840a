"""The measurement: warm up until the step time has settled, then time blocks of whole optimizer steps.

The device is waited for at the edges of a block only, so that host and device overlap inside it as they do in training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from autotune.records import Block, Disturbance, MachineState, TrialRequest, TrialStatus, WarmUp
from autotune.stats import noise_has_settled, relative_standard_error, throughput_interval, undisturbed
from autotune.trial.loop import Loop

_WARM_UP_SHARE = 0.4
"""Of the time limit, at the most: a warm-up that has not settled by then is marked."""
_SETTLED, _SETTLED_AT_BEST = 0.15, 0.05
"""Two steps in a row whose times differ by less than this share; two stretches of many steps."""
_STRETCH_SHARE = 0.04
"""Of the time limit: what a stretch of steps has to last to show that their time has settled."""
_STEPS_FOR_PACE = 8
_BLOCKS_PER_LIMIT = 12
_BLOCKS_OF_A_SOAK = 30
"""At least: a trend in the memory shows between them."""
_SHORTEST_BLOCK_S, _LONGEST_BLOCK_S = 0.02, 0.5
"""The shorter dwarfs the clock and the synchronisation, some 10 µs each; beyond the longer blocks would only hide the
spread."""
_OVERRUN = 2.0
_FEWEST_BLOCKS = 2
"""Of a trial whose steps are so long that its time is spent before `min_blocks`."""
_MOST_TIME_GIVEN_BACK = 0.5
"""Of the time limit, for measuring again what was disturbed."""

Report = Callable[[str, dict[str, Any]], None]


class Machine(Protocol):
    """`MachineWatch`, as far as the measurement knows it."""

    def find_workers(self) -> None: ...

    def start(self) -> None: ...

    def read(self) -> MachineState: ...


class Measurement:
    """Warm-up and blocks of one trial, reported as they come."""

    def __init__(
        self,
        loop: Loop,
        request: TrialRequest,
        report: Report,
        *,
        machine: Machine,
        judge: Callable[[MachineState, float], tuple[Disturbance, ...]],
    ) -> None:
        """`judge`: what disturbed a block, from the machine's state during it and its seconds."""
        self._loop = loop
        self._request = request
        self._report = report
        self._machine = machine
        self._judge = judge
        self._started = loop.clock()

    def run(self, head_start_spent: Callable[[], bool]) -> TrialStatus:
        """Warm up, then time blocks until the request is met: OK; or until it can no longer win: PRUNED.

        Raises whatever the workload raises, and Diverged.
        """
        step_time_s = self._warm_up(head_start_spent)
        self._machine.find_workers()
        block_s = min(max(self._request.time_limit_s / _BLOCKS_PER_LIMIT, _SHORTEST_BLOCK_S), _LONGEST_BLOCK_S)
        steps_per_block = max(1, round(block_s / step_time_s))
        if self._request.min_steps:
            steps_per_block = min(steps_per_block, max(1, self._request.min_steps // _BLOCKS_OF_A_SOAK))
        blocks: list[Block] = []
        while not self._done(blocks) and not self._is_hopeless(blocks):
            blocks.append(self._block(steps_per_block, block_s))
            steps = self._loop.harvest()
            self._report("block", {"block": blocks[-1].model_dump(mode="json"), "steps": steps.model_dump(mode="json")})
        return TrialStatus.PRUNED if self._is_hopeless(blocks) else TrialStatus.OK

    @property
    def _spent_s(self) -> float:
        return self._loop.clock() - self._started

    def _warm_up(self, head_start_spent: Callable[[], bool]) -> float:
        """Train until step times settle and the loader's head start is spent; mean seconds of the last steps."""
        times: list[float] = []
        settled = False
        limit_s = self._request.time_limit_s * _WARM_UP_SHARE
        most = self._request.max_steps or math.inf
        while not settled and self._loop.steps_done < most and (len(times) < 2 or self._spent_s < limit_s):
            self._loop.begin(1)
            before = self._loop.clock()
            self._loop.optimizer_step()
            self._loop.synchronise()
            times.append(self._loop.clock() - before)
            if len(times) == 1:  # compilation counts against the budget, not against this trial's time to measure
                self._started = self._loop.clock()
            settled = has_settled(times, _STRETCH_SHARE * self._request.time_limit_s) and head_start_spent()
        warm_up = WarmUp(steps=len(times), seconds=math.fsum(times), first_step_s=times[0], settled=settled)
        steps = self._loop.harvest()
        self._report("warm", {"warm_up": warm_up.model_dump(), "steps": steps.model_dump(mode="json")})
        last = times[1:][-_STEPS_FOR_PACE:] or times
        return math.fsum(last) / len(last)

    def _block(self, steps: int, block_s: float) -> Block:
        """`steps` optimizer steps; fewer when they take much longer than the `block_s` that the warm-up promised, where
        no others have been told to do as many."""
        loop = self._loop
        samples = loop.samples
        most = int(min(steps, (self._request.max_steps or math.inf) - loop.steps_done))
        loop.begin(most)
        loop.synchronise()
        self._machine.start()
        loop.watch.timeline.restart()
        before = loop.clock()
        done = 0
        while done < most and (done == 0 or loop.crew.size > 1 or loop.clock() - before < _OVERRUN * block_s):
            loop.optimizer_step()
            done += 1
        loop.synchronise()
        seconds = loop.clock() - before
        machine = self._machine.read()
        return Block(
            steps=done,
            samples=loop.samples - samples,
            seconds=seconds,
            phases=loop.watch.timeline.phases(seconds),
            machine=machine,
            disturbances=self._judge(machine, seconds),
        )

    def _done(self, blocks: list[Block]) -> bool:
        """Whether the throughput is known well enough, will not be known better, or the time is over."""
        request, steps = self._request, self._loop.steps_done
        if request.max_steps is not None and steps >= request.max_steps:
            return True
        if steps < request.min_steps or len(blocks) < _FEWEST_BLOCKS:
            return False
        if len(blocks) >= request.max_blocks or self._spent_s >= request.time_limit_s + self._given_back_s(blocks):
            return True
        good = [block for block in blocks if not block.disturbances]
        if len(good) < request.min_blocks:
            return False
        return relative_standard_error(good) < request.target_relative_error or noise_has_settled(good)

    def _given_back_s(self, blocks: list[Block]) -> float:
        """Time for measuring again what was disturbed, within bounds; none where the disturbance is there to stay."""
        if all(block.disturbances for block in blocks):
            return 0.0
        disturbed_s = math.fsum(block.seconds for block in blocks if block.disturbances)
        return min(disturbed_s, _MOST_TIME_GIVEN_BACK * self._request.time_limit_s)

    def _is_hopeless(self, blocks: list[Block]) -> bool:
        """Whether even the upper end of the interval is below what the request asks a winner for."""
        floor = self._request.hopeless_below
        if floor is None or len(blocks) < self._request.min_blocks:
            return False
        clean = sum(not block.disturbances for block in blocks)
        if clean < self._request.min_blocks and (clean or self._spent_s < self._request.time_limit_s / 2):
            return False  # a burst of other work is no reason to give up; one that is there to stay is
        interval = throughput_interval(undisturbed(blocks))
        return interval is not None and interval.high < floor


def has_settled(times: list[float], least_s: float = 0.0) -> bool:
    """Whether step times have stopped falling: the last stretch of steps took about as long as the one before it.

    Stretches of 1, 2, 4, … steps are tried, for step times that alternate; those shorter than `least_s` seconds cannot
    show a slow trend, such as clocks that ramp up. The more steps, the closer the two have to be. The first step never
    counts: it compiles, searches for convolution algorithms and grows the allocator.
    """
    stretch = 1
    while len(times) > 2 * stretch:
        last = math.fsum(times[-stretch:])
        earlier = math.fsum(times[-2 * stretch : -stretch])
        if last >= least_s and abs(last / earlier - 1) < max(_SETTLED / math.sqrt(stretch), _SETTLED_AT_BEST):
            return True
        stretch *= 2
    return False
