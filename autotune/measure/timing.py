"""The measurement of one trial: warm up, bring the loader's queue to its steady level, time blocks of whole optimizer
steps.

The host waits for the device only at the edges of a block, so that both overlap inside it as in training.
docs/measuring.md explains the measured rate, and how queue, epochs and disturbances are handled.
"""

from __future__ import annotations

import math

from autotune.measure.account import Account
from autotune.measure.loading import loading
from autotune.measure.plan import Plan, plan
from autotune.measure.protocols import Judge, Loader, Loop, Machine, Report
from autotune.measure.slow_batches import have_been_timed, slow_batches_of
from autotune.measure.timed_block import blocks_of_epochs
from autotune.measure.warm_up import WarmedUp, warm_up
from autotune.records import Block, Rates, SideRate, TrialRequest, TrialStatus
from autotune.stats import noise_has_settled, relative_standard_error

_OVERRUN = 2.0
_FEWEST_BLOCKS = 2
"""Fewest blocks of a trial whose steps are so long that its time ends before `min_blocks`; one block would not show the
error."""
_MOST_TIME_GIVEN_BACK, _MOST_GIVEN_BACK_S = 0.5, 3.0
"""Share of the time limit for measuring disturbed blocks again; seconds if too few blocks were undisturbed: it is
better that a short run waits until other work is over than that it measures it."""
_FEWEST_SLOW = 3
"""If there are steps that take several times as long as the others, the blocks must contain so many of them."""
_WITHOUT_SLOW = 100
"""After so many batches without a slow one, in this run and earlier ones, the run stops looking for slow batches: if
one in fifty were slow, 87 % of such runs would have seen one, and later runs go on counting."""
_MOST_EMPTYING = 8
"""How often the queued batches are discarded: the workers go on loading meanwhile."""


class Measurement:
    """Runs and reports the warm-up and the blocks of one trial."""

    def __init__(
        self, loop: Loop, loader: Loader, request: TrialRequest, report: Report, *, machine: Machine, judge: Judge
    ) -> None:
        self._loop = loop
        self._loader = loader
        self._request = request
        self._report = report
        self._machine = machine
        self._judge = judge
        self._began_s = loop.clock()
        loader.read().earlier = request.slow_batches
        self._account = Account(loader.read())
        self._fewest_steps = 0

    def run(self) -> TrialStatus:
        """Warm up, then time blocks until the request is met: OK; or until it can no longer win: PRUNED.

        Raises whatever the workload raises, and Diverged.
        """
        warm = warm_up(self._loop, self._loader, self._request)
        self._began_s = warm.began_s
        self._tell("warm", {"warm_up": warm.record.model_dump()})
        planned = self._prepare(warm)
        self._account = Account(
            self._loader.read(),
            whole_epochs=planned.whole_epochs,
            trains_on_cpu=self._loop.trains_on_cpu,
        )
        self._fewest_steps = _FEWEST_SLOW * warm.steps_between_slow
        self._machine.find_workers()
        while not self._done(planned) and not self._is_hopeless():
            block = self._block(planned)
            rates = self._account.rates()
            self._tell(
                "block",
                {"block": block.model_dump(mode="json"), "rates": rates.model_dump(mode="json") if rates else None},
            )
        return TrialStatus.PRUNED if self._is_hopeless() else TrialStatus.OK

    def rates(self) -> Rates | None:
        """Rates from the blocks so far; None before the first."""
        self._loader.read()
        return self._account.rates()

    def step_rate(self) -> SideRate | None:
        """Rate of the step alone from the blocks so far."""
        rates = self.rates()
        if rates is None:
            return None
        timed_s = math.fsum(block.seconds for block in self._blocks)
        return SideRate(per_s=rates.demand_per_s, error=rates.demand_error, seconds=timed_s)

    @property
    def _blocks(self) -> list[Block]:
        return [timed.block for timed in self._account.timed]

    @property
    def _spent_s(self) -> float:
        return self._loop.clock() - self._began_s

    def _tell(self, event: str, payload: dict[str, object]) -> None:
        steps = self._loop.harvest()
        self._report(event, {**payload, "steps": steps.model_dump(mode="json")})

    def _prepare(self, warm: WarmedUp) -> Plan:
        """Decide what to time, and bring the loader to the state in which timing begins."""
        log = self._loader.read()
        loaded = loading(log, warm.began_s)
        if loaded is None:  # no batch has been seen
            return Plan(steps=1, block_s=math.inf)
        left_s = self._request.time_limit_s - self._spent_s
        planned = plan(self._request, log, loaded, step_s=warm.step_s, left_s=left_s, wall_s=warm.wall_s)
        if planned.discard:
            self._loop.discard(planned.discard)
        for _ in range(_MOST_EMPTYING):
            queued = self._loader.read().level
            if not planned.empty_queue or queued <= 0:
                break
            self._loop.discard(queued)
        return planned

    def _block(self, planned: Plan) -> Block:
        """Time as many optimizer steps as planned. A process that trains alone stops earlier if they take much longer
        than in the warm-up."""
        loop = self._loop
        most = int(min(planned.steps, (self._request.max_steps or math.inf) - loop.steps_done))
        if planned.one_epoch and (epoch := self._loader.read().epoch_batches):
            left = epoch - sum(timed.batches for timed in self._account.timed) % epoch
            most = min(most, max(left // self._request.config.grad_accum_steps, 1))
        loop.synchronise()
        samples, first_take = loop.samples, self._loader.read().taken
        self._machine.start()
        loop.begin(most)
        before_s = loop.clock()
        done = 0
        while done < most and (done == 0 or loop.ranks > 1 or loop.clock() - before_s < _OVERRUN * planned.block_s):
            loop.optimizer_step()
            done += 1
        asked_s = loop.clock()
        loop.synchronise()
        ended_s = loop.clock()
        machine = self._machine.read()
        seconds = ended_s - before_s
        block = Block(
            steps=done,
            samples=loop.samples - samples,
            seconds=seconds,
            phases=loop.phases(seconds),
            machine=machine,
            disturbances=self._judge(machine, seconds),
        )
        self._loader.read()
        self._account.add(block, began_s=before_s, asked_s=asked_s, ended_s=ended_s, first_take=first_take)
        return block

    def _done(self, planned: Plan) -> bool:
        """Whether the throughput is known well enough or cannot become more precise, or the time is over."""
        request, steps, blocks = self._request, self._loop.steps_done, self._blocks
        if request.max_steps is not None and steps >= request.max_steps:
            return True
        if blocks and request.ends_after_s is not None and self._spent_s + blocks[-1].seconds > request.ends_after_s:
            return True
        if steps < request.min_steps or len(blocks) < _FEWEST_BLOCKS or self._waits(blocks):
            return False
        next_s = planned.block_s / 2 if planned.whole_epochs else 0.0
        limit_s = request.time_limit_s + self._given_back_s(blocks)
        if len(blocks) >= request.max_blocks or self._spent_s + next_s >= limit_s:
            return True
        if planned.one_epoch and not blocks_of_epochs(self._account.timed, self._loader.read().epoch_batches):
            return False
        clean = sum(not block.disturbances for block in blocks)
        return clean >= request.min_blocks and self._has_seen_enough() and self._is_known_well()

    def _is_known_well(self) -> bool:
        """Whether the throughput is known as precisely as the request asks, or as precisely as more blocks could make
        it."""
        good = [block for block in self._account.lasting() if not block.disturbances]
        rates = self._account.rates()
        if rates is None or len(good) < _FEWEST_BLOCKS:
            return False
        if rates.sustained_error < self._request.target_relative_error:
            return True
        return noise_has_settled(good) and relative_standard_error(good) >= rates.sustained_error

    def _has_seen_enough(self) -> bool:
        """Whether the blocks contain enough slow batches and slow steps, if there are any."""
        if sum(block.steps for block in self._blocks) < self._fewest_steps:
            return False
        if self._request.side == "step":
            return True
        log, began_s = self._loader.read(), self._account.timed[0].began_s
        own = slow_batches_of(log, began_s)
        if not own.slow and own.batches + self._request.batches_without_slow >= _WITHOUT_SLOW:
            return True
        return have_been_timed(log, began_s)

    def _waits(self, blocks: list[Block]) -> bool:
        """Whether to wait, because too many blocks were disturbed and the disturbance may soon be over."""
        clean = sum(not block.disturbances for block in blocks)
        disturbed_s = math.fsum(block.seconds for block in blocks if block.disturbances)
        return clean < _FEWEST_BLOCKS and disturbed_s < self._request.waits_s

    def _given_back_s(self, blocks: list[Block]) -> float:
        """Extra time for measuring disturbed blocks again, up to a limit: the whole limit while too few blocks are
        undisturbed, none if all blocks are disturbed."""
        clean = sum(not block.disturbances for block in blocks)
        most_s = _MOST_TIME_GIVEN_BACK * self._request.time_limit_s
        if not clean:
            return 0.0
        if clean < _FEWEST_BLOCKS:
            return max(most_s, _MOST_GIVEN_BACK_S)
        return min(math.fsum(block.seconds for block in blocks if block.disturbances), most_s)

    def _is_hopeless(self) -> bool:
        """Whether even the upper end of the interval is below the rate that the request needs from a winner."""
        floor, blocks = self._request.hopeless_below, self._blocks
        if floor is None or len(blocks) < self._request.min_blocks:
            return False
        clean = sum(not block.disturbances for block in blocks)
        if clean < self._request.min_blocks and (clean or self._spent_s < self._request.time_limit_s / 2):
            return False  # a short burst of other work is no reason to give up; lasting work is
        interval = self._account.interval()
        return interval is not None and interval.high < floor
