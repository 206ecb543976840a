"""Warm-up and timed blocks, on a clock that only the fake training moves."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from support.simulation import Clock

from autotune.config import TrainConfig
from autotune.measure import LoaderLog, Measurement, has_settled
from autotune.records import Block, Disturbance, MachineState, OptimizerSteps, Rates, TrialRequest, TrialStatus, WarmUp
from autotune.stats import relative_standard_error, throughput, undisturbed
from autotune.training import StepOutput
from autotune.trial.failure import Diverged
from autotune.trial.loop import Loop, Watch
from autotune.trial.timeline import HostTimeline

SAMPLES = 8
INTRUDED = 2.0
"""What a step takes longer while the machine is busy with other things."""


class Training:
    """Optimizer steps that take what `step_times_s` says, the last for ever, after waiting `wait_s` for each batch.

    A device of its own: a step only queues its work, and `synchronise` waits for it; unless it is `on_host`.
    `busy` says at which seconds since the beginning something else runs; steps asked for then take twice as long.
    """

    def __init__(
        self,
        step_times_s: Iterable[float],
        *,
        wait_s: float = 0.0,
        losses: Iterable[float] = (),
        accumulate: int = 1,
        skipped: Iterable[bool] = (),
        on_host: bool = False,
        busy: Callable[[float], bool] = lambda _at_s: False,
    ) -> None:
        self.clock = Clock()
        self.synchronised_at: list[int] = []
        self.batches_taken = 0
        self.loss_scale: float | None = None
        self.queued_s = 0.0
        self.machine = Machine(self)
        self._began_s = self.clock()
        self._times = _then_the_last(step_times_s)
        self._wait_s = wait_s
        self._losses = itertools.chain(losses, itertools.repeat(1.0))
        self._skipped = itertools.chain(skipped, itertools.repeat(False))
        self._accumulate = accumulate
        self._on_host = on_host
        self._busy = busy
        self.log = LoaderLog(workers=0, prefetch=0, epoch_batches=None)
        self.log.begin_epoch(self.clock())
        self.loop = Loop(
            batches=self._batches(),
            step=self,
            clock=self.clock,
            synchronise=self._synchronise,
            watch=Watch(timeline=HostTimeline(self.clock)),
        )
        self.events: list[tuple[str, dict[str, Any]]] = []

    def read(self) -> LoaderLog:
        return self.log

    def measure(self, *, time_limit_s: float = 8.0, **request: Any) -> TrialStatus:
        asked = TrialRequest(config=TrainConfig(), seed=0, time_limit_s=time_limit_s, **request)

        def report(name: str, payload: dict[str, Any]) -> None:
            self.events.append((name, payload))

        return Measurement(self.loop, self, asked, report, machine=self.machine, judge=judge).run()

    @property
    def warm_up(self) -> WarmUp:
        (payload,) = (payload for name, payload in self.events if name == "warm")
        return WarmUp.model_validate(payload["warm_up"])

    @property
    def blocks(self) -> list[Block]:
        return [Block.model_validate(payload["block"]) for name, payload in self.events if name == "block"]

    @property
    def steps(self) -> list[OptimizerSteps]:
        return [OptimizerSteps.model_validate(payload["steps"]) for _, payload in self.events]

    @property
    def spent_s(self) -> float:
        """As the time limit counts it: from the end of the first step."""
        return self.clock() - self._began_s - self.warm_up.first_step_s

    def __call__(self, batch: int) -> StepOutput:
        closed = (batch + 1) % self._accumulate == 0
        step_s = next(self._times) / self._accumulate
        if self._busy(self.clock() - self._began_s):
            self.machine.outside_load = 1.0
            step_s *= INTRUDED
        self.queued_s += step_s
        if self._on_host:
            self._work()
        return StepOutput(
            loss=torch.tensor(next(self._losses) if closed else math.nan),
            samples=SAMPLES * self._accumulate if closed else SAMPLES,
            window_closed=closed,
            optimizer_stepped=closed and not next(self._skipped),
        )

    def _batches(self) -> Iterator[int]:
        for number in itertools.count():
            asked_s = self.clock()
            self.clock.advance(self._wait_s)
            self.batches_taken += 1
            self.log.take(asked_s, self.clock())
            yield number

    def _synchronise(self) -> None:
        self._work()
        self.synchronised_at.append(self.loop.steps_done)

    def _work(self) -> None:
        self.clock.advance(self.queued_s)
        self.queued_s = 0.0


class Machine:
    """Knows whether a step has met other work since `start`, and when it was asked."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self.outside_load = 0.0
        self.asked: list[tuple[str, int, float]] = []
        """What for, after how many steps, and how many seconds of work the device still had."""

    def find_workers(self) -> None:
        self._note("find_workers")

    def start(self) -> None:
        self._note("start")
        self.outside_load = 0.0

    def read(self) -> MachineState:
        self._note("read")
        return MachineState(outside_load=self.outside_load, available_memory_bytes=0, resident_bytes=0)

    def _note(self, what: str) -> None:
        self.asked.append((what, self._training.loop.steps_done, self._training.queued_s))


def judge(state: MachineState, _seconds: float) -> tuple[Disturbance, ...]:
    return ("contended",) if state.outside_load else ()


class HostStep:
    """A step that the host computes itself: it takes its time phase by phase, and says when each is over."""

    loss_scale = None

    def __init__(self, training: Training, *, accumulate: int = 1, **seconds: float) -> None:
        self._clock, self._mark = training.clock, training.loop.watch.mark
        self._seconds = seconds
        self._accumulate = accumulate

    def __call__(self, batch: int) -> StepOutput:
        closed = (batch + 1) % self._accumulate == 0
        self._take("copy")
        self._take("forward_backward")
        if closed:
            self._take("optimizer")
        samples = SAMPLES * self._accumulate if closed else SAMPLES
        return StepOutput(loss=torch.tensor(1.0), samples=samples, window_closed=closed, optimizer_stepped=closed)

    def _take(self, phase: Any) -> None:
        self._clock.advance(self._seconds[phase])
        self._mark(phase)


def _then_the_last(values: Iterable[float]) -> Iterator[float]:
    value = 0.0
    for value in values:
        yield value
    yield from itertools.repeat(value)


def test_the_first_step_is_no_part_of_what_is_timed() -> None:
    training = Training([30.0, 0.1, 0.1, 0.1])
    training.measure()
    warm_up = training.warm_up
    assert warm_up.first_step_s == pytest.approx(30.0)
    assert warm_up.steps == 9, "two stretches of four: the shortest that show a trend in a trial of eight seconds"
    assert warm_up.seconds == pytest.approx(30.8)
    assert warm_up.settled
    assert all(block.seconds == pytest.approx(0.1 * block.steps) for block in training.blocks)


def test_compiling_takes_no_time_from_the_measurement() -> None:
    """The limit counts from the end of the first step."""
    quick, compiled = Training([0.1]), Training([500.0, 0.1])
    for training in (quick, compiled):
        training.measure(target_relative_error=0.0, time_limit_s=4.9)
    assert len(compiled.blocks) == len(quick.blocks)
    assert compiled.warm_up.settled


def test_warm_up_goes_on_while_steps_grow_faster() -> None:
    training = Training([1.0, 0.4, 0.3, 0.24, 0.2, 0.19])
    training.measure(time_limit_s=4.5)
    assert training.warm_up.steps == 6
    assert training.warm_up.settled


def test_a_warm_up_that_never_settles_ends_at_its_share_and_says_so() -> None:
    times = [0.01 * 1.2**step for step in range(25)]
    training = Training([1.0, *times])
    training.measure(time_limit_s=10.0)
    assert not training.warm_up.settled
    assert 0.4 * 10.0 <= training.warm_up.seconds - 1.0 <= 0.4 * 10.0 + times[-1]
    assert training.blocks


def test_steps_longer_than_the_whole_limit_are_timed_all_the_same() -> None:
    """Two steps of warm-up and two blocks: the least that says anything."""
    training = Training([60.0])
    training.measure(time_limit_s=2.0)
    assert training.warm_up.steps == 2
    assert not training.warm_up.settled
    assert [block.steps for block in training.blocks] == [1, 1]


@pytest.mark.parametrize(
    ("step_s", "limit_s", "steps"), [(0.1, 10.0, 5), (0.003, 10.0, 167), (0.1, 2.4, 2), (0.7, 10.0, 1), (0.4, 10.0, 1)]
)
def test_a_block_is_half_a_second_or_a_twelfth_of_the_limit_in_whole_steps(
    step_s: float, limit_s: float, steps: int
) -> None:
    training = Training([step_s])
    training.measure(time_limit_s=limit_s)
    assert {block.steps for block in training.blocks} == {steps}


@pytest.mark.parametrize(("slow_s", "steps"), [(0.15, 5), (0.3, 4), (1.0, 1), (60.0, 1)])
def test_a_block_whose_steps_became_slower_is_cut_after_twice_its_time(slow_s: float, steps: int) -> None:
    """Planned: five steps of 0.1 s. Each step is waited for here, as on a CPU."""
    training = Training([0.1] * 14 + [slow_s], on_host=True)
    training.measure(max_blocks=3, target_relative_error=0.0)
    first, second, *_ = training.blocks
    assert (first.steps, second.steps) == (5, steps)
    assert second.samples == steps * SAMPLES
    assert second.seconds == pytest.approx(steps * slow_s)
    assert len(training.steps[2].losses) == steps


def test_blocks_count_samples_seconds_and_steps() -> None:
    training = Training([0.25])
    training.measure(max_blocks=4, target_relative_error=0.0)
    assert [(block.steps, block.samples) for block in training.blocks] == [(2, 2 * SAMPLES)] * 4
    assert [block.seconds for block in training.blocks] == pytest.approx([0.5] * 4)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_phases_add_up_to_the_block_and_each_gets_its_own(accumulate: int) -> None:
    """Per micro-batch but for the optimizer."""
    training = Training([], wait_s=0.04)
    parts = {"copy": 0.01, "forward_backward": 0.03, "optimizer": 0.02}
    training.loop.step = HostStep(training, accumulate=accumulate, **parts)
    training.measure(time_limit_s=20.0)
    assert training.blocks
    for block in training.blocks:
        micro_batches = block.steps * accumulate
        assert sum(block.phases.values()) == pytest.approx(block.seconds)
        assert block.phases == {
            "data_wait": pytest.approx(0.04 * micro_batches),
            "copy": pytest.approx(0.01 * micro_batches),
            "forward_backward": pytest.approx(0.03 * micro_batches),
            "optimizer": pytest.approx(0.02 * block.steps),
        }


def test_without_waiting_there_is_no_wait() -> None:
    training = Training([])
    training.loop.step = HostStep(training, copy=0.0, forward_backward=0.1, optimizer=0.0)
    training.measure()
    for block in training.blocks:
        assert block.phases["data_wait"] == 0
        assert block.phases["forward_backward"] == pytest.approx(block.seconds)


def test_what_lies_between_two_blocks_is_no_part_of_any_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the machine's state takes milliseconds."""
    training = Training([], wait_s=0.04)
    training.loop.step = HostStep(training, copy=0.0, forward_backward=0.06, optimizer=0.0)
    start = training.machine.start

    def slow_start() -> None:
        start()
        training.clock.advance(3.0)

    monkeypatch.setattr(training.machine, "start", slow_start)
    training.measure(max_blocks=3, target_relative_error=0.0, time_limit_s=100.0)
    for block in training.blocks:
        assert block.seconds == pytest.approx(0.1 * block.steps)
        assert block.phases["data_wait"] == pytest.approx(0.04 * block.steps)


def test_the_device_is_waited_for_at_the_edges_of_a_block_only() -> None:
    training = Training([0.1])
    training.measure(max_blocks=3, target_relative_error=0.0)
    after_warm_up = training.synchronised_at[training.warm_up.steps :]
    assert after_warm_up == [9, 14, 14, 19, 19, 24], "two edges a block of five steps"


def test_work_that_the_device_still_has_belongs_to_the_block_that_asked_for_it() -> None:
    """Steps return at once; without the wait at the end every block would look free."""
    training = Training([0.1])
    training.measure()
    assert throughput(training.blocks) == pytest.approx(SAMPLES / 0.1)


def test_accumulation_is_one_step_of_all_its_micro_batches() -> None:
    training = Training([0.1], accumulate=4)
    training.measure(max_blocks=2, target_relative_error=0.0, min_blocks=2)
    assert [(block.steps, block.samples) for block in training.blocks] == [(5, 5 * 4 * SAMPLES)] * 2
    assert training.batches_taken == 4 * training.loop.steps_done
    assert [len(part.losses) for part in training.steps] == [9, 5, 5]
    assert all(math.isfinite(loss) for part in training.steps for loss in part.losses), "of whole windows only"


def test_every_optimizer_step_is_told_once_in_order() -> None:
    losses = [5.0 - 0.01 * step for step in range(100)]
    training = Training([0.1], losses=losses, skipped=[True, True, False, True])
    training.measure(max_blocks=4, target_relative_error=0.0)
    told = [loss for part in training.steps for loss in part.losses]
    assert told == pytest.approx(losses[: training.loop.steps_done])
    assert [skip for part in training.steps for skip in part.skipped][:5] == [True, True, False, True, False]
    assert {count for part in training.steps for count in part.samples} == {SAMPLES}
    assert [name for name, _ in training.events] == ["warm", "block", "block", "block", "block"]


def test_each_block_is_reported_when_it_ends() -> None:
    """The study may stop a trial that can no longer win."""
    training = Training([0.1])
    seen: list[int] = []
    request = TrialRequest(config=TrainConfig(), seed=0, time_limit_s=8.0, max_blocks=3, target_relative_error=0.0)

    def report(_name: str, _payload: dict[str, Any]) -> None:
        seen.append(training.loop.steps_done)

    Measurement(training.loop, training, request, report, machine=training.machine, judge=judge).run()
    assert seen == [9, 14, 19, 24]


def test_a_steady_trial_ends_at_its_fewest_blocks() -> None:
    for fewest in (3, 6):
        training = Training([0.1], accumulate=8)
        training.measure(target_relative_error=0.02, min_blocks=fewest)
        assert len(training.blocks) == fewest


def test_no_trial_ends_early_before_it_has_seen_64_batches() -> None:
    """One in fifty may take much longer than the others."""
    training = Training([0.1])
    training.measure(target_relative_error=0.02, min_blocks=3)
    assert 64 <= training.batches_taken < 64 + 5


@pytest.mark.parametrize(("earlier", "fewest", "most"), [(0, 64, 68), (60, 40, 44), (100, 1, 39)])
def test_it_does_once_it_and_earlier_ones_have_seen_a_hundred_without_a_slow_one(
    earlier: int, fewest: int, most: int
) -> None:
    training = Training([0.1])
    training.measure(target_relative_error=0.02, min_blocks=3, batches_without_slow=earlier)
    assert fewest <= training.batches_taken <= most


def test_a_noisy_trial_goes_on_until_its_error_is_small_enough() -> None:
    """Blocks of five steps that differ by turns: the error falls as blocks come."""

    def noisy() -> Training:
        return Training(itertools.chain([0.1] * 129, itertools.cycle([*[0.09] * 5, *[0.11] * 5])))

    rough, fine = noisy(), noisy()
    rough.measure(target_relative_error=0.04, time_limit_s=100.0)
    fine.measure(target_relative_error=0.01, time_limit_s=100.0)
    assert rough.warm_up.steps == 129
    assert 3 < len(rough.blocks) < len(fine.blocks) < 150
    assert relative_standard_error(fine.blocks) < 0.01


def test_noise_that_has_stopped_shrinking_ends_the_trial_before_its_time() -> None:
    """Spells of other speed, each as long as all before: twice the blocks hold twice the spell."""
    spells = [[step_s] * (5 * 2**number) for number, step_s in enumerate([0.1, 0.13] * 5)]
    training = Training(itertools.chain([0.1] * 129, *spells))
    status = training.measure(target_relative_error=0.005, time_limit_s=100.0)
    assert status is TrialStatus.OK
    assert len(training.blocks) in (32, 64, 128)
    assert training.spent_s < 75.0
    assert relative_standard_error(training.blocks) > 0.005


def test_no_more_blocks_than_asked_for() -> None:
    training = Training([0.1])
    training.measure(max_blocks=7, target_relative_error=0.0, time_limit_s=1000.0)
    assert len(training.blocks) == 7


def test_the_trial_ends_after_the_block_in_which_its_time_is_spent() -> None:
    training = Training([0.1])
    training.measure(target_relative_error=0.0, time_limit_s=5.0)
    spent_s = training.warm_up.seconds - 0.1 + sum(block.seconds for block in training.blocks)
    assert spent_s + 1e-9 >= 5.0
    assert spent_s - training.blocks[-1].seconds < 5.0


@pytest.mark.parametrize("ends", [{"max_blocks": 3}, {"target_relative_error": 1.0}, {"time_limit_s": 1.0}])
def test_a_soak_ends_for_no_reason_before_its_steps_are_done(ends: dict[str, Any]) -> None:
    training = Training([0.1])
    training.measure(min_steps=200, **ends)
    last = training.blocks[-1].steps
    assert 200 <= training.loop.steps_done < 200 + last + 1


def test_a_soak_whose_steps_take_longer_than_there_is_time_ends_with_the_last_block_that_fits() -> None:
    training = Training([0.1])
    training.measure(min_steps=200, time_limit_s=0.0, ends_after_s=5.0)
    spent_s = training.warm_up.seconds - 0.1 + sum(block.seconds for block in training.blocks)
    assert spent_s <= 5.0 < spent_s + training.blocks[-1].seconds + 0.1


def test_a_soak_without_any_time_limit_trains_its_steps_and_no_more() -> None:
    training = Training([0.1])
    training.measure(min_steps=50, time_limit_s=0.0)
    assert training.loop.steps_done == 50


@pytest.mark.parametrize("steps", [13, 14, 40, 171])
def test_a_comparison_ends_exactly_with_its_steps(steps: int) -> None:
    """In the middle of a block, at its edge, and whatever else would end or go on."""
    training = Training([0.1])
    status = training.measure(max_steps=steps, min_steps=1000, min_blocks=1_000_000, max_blocks=1_000_000)
    told = [loss for part in training.steps for loss in part.losses]
    assert status is TrialStatus.OK
    assert training.loop.steps_done == len(told) == steps
    assert training.warm_up.steps + sum(block.steps for block in training.blocks) == steps


def test_a_comparison_ends_when_its_time_is_over() -> None:
    training = Training([0.1])
    training.measure(max_steps=1000, min_blocks=1_000_000, max_blocks=1_000_000, time_limit_s=5.0)
    assert 5.0 <= training.spent_s + 1e-9 < 5.5


@pytest.mark.parametrize("steps", [1, 2, 3, 100])
def test_a_comparison_that_ends_inside_its_warm_up_ends_exactly_there_too(steps: int) -> None:
    training = Training([0.01])
    status = training.measure(max_steps=steps, time_limit_s=60.0)
    assert status is TrialStatus.OK
    assert training.loop.steps_done == steps


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", [1, 2, 9, 10, 14, 15])
def test_divergence_names_its_step(step: int, bad: float) -> None:
    training = Training([0.1], losses=[1.0] * (step - 1) + [bad])
    with pytest.raises(Diverged, match=rf"^the loss is {bad} at optimizer step {step}$"):
        training.measure(target_relative_error=0.0)


def test_blocks_before_the_divergence_are_reported() -> None:
    training = Training([0.1], losses=[1.0] * 19 + [math.nan])
    with pytest.raises(Diverged):
        training.measure(target_relative_error=0.0)
    assert [name for name, _ in training.events] == ["warm", "block", "block"]


@pytest.mark.parametrize("period", [[0.006, 0.036], [0.036, 0.006], [0.006, 0.006, 0.006, 0.066]])
@pytest.mark.parametrize("limit_s", [2.0, 20.0])
def test_steps_that_alternate_settle_and_have_their_true_throughput(period: list[float], limit_s: float) -> None:
    """A loader with two processes: every second step stalls. The mean is 21 ms, total over total; a median would say 6
    or 36."""
    training = Training(itertools.chain([1.0], itertools.cycle(period)))
    training.measure(time_limit_s=limit_s)
    assert training.warm_up.settled
    assert training.warm_up.seconds - 1.0 < 0.3 * limit_s
    mean_s = sum(period) / len(period)
    assert throughput(training.blocks) == pytest.approx(SAMPLES / mean_s, rel=0.01)


@pytest.mark.parametrize("limit_s", [5.0, 10.0, 30.0])
def test_a_slow_ramp_does_not_pass_for_settled(limit_s: float) -> None:
    """Clocks that ramp up: any two steps in a row are alike long before they are as fast as they will be."""

    def ramp(train_s: float) -> float:
        return 0.005 * (1 + math.exp(-train_s / (0.06 * limit_s)))

    times, now_s = [1.0], 0.0
    while now_s < limit_s:
        times.append(ramp(now_s))
        now_s += times[-1]
    training = Training(times)
    training.measure(time_limit_s=limit_s)
    assert ramp(training.warm_up.seconds - 1.0) < 1.15 * 0.005
    assert training.warm_up.settled


def test_a_trial_that_cannot_win_is_stopped_after_its_fewest_blocks() -> None:
    training = Training([0.1])
    status = training.measure(hopeless_below=1.01 * SAMPLES / 0.1, target_relative_error=0.0, min_blocks=4)
    assert status is TrialStatus.PRUNED
    assert len(training.blocks) == 4


@pytest.mark.parametrize("floor", [None, 0.5 * SAMPLES / 0.1, 0.99 * SAMPLES / 0.1])
def test_a_promising_trial_is_not_stopped(floor: float | None) -> None:
    training = Training([0.1])
    status = training.measure(hopeless_below=floor, max_blocks=12, target_relative_error=0.0, time_limit_s=20.0)
    assert status is TrialStatus.OK
    assert len(training.blocks) == 12


def test_a_noisy_trial_has_the_benefit_of_the_doubt() -> None:
    """A tenth below the floor, blocks apart by more: their interval reaches it at first, and no more in the end."""
    noise = itertools.cycle([*[0.08] * 5, *[0.12] * 5])
    training = Training(itertools.chain([0.1] * 65, noise))
    floor = 1.1 * SAMPLES / 0.1
    status = training.measure(hopeless_below=floor, target_relative_error=0.0, time_limit_s=50.0)
    assert training.warm_up.steps == 65
    assert status is TrialStatus.PRUNED
    assert 5 < len(training.blocks) < 50


def test_stopping_early_does_not_bend_the_figure() -> None:
    """Stopped after the least that a trial is given, whichever way its noise went."""
    ratios = []
    for seed in range(40):
        draw = random.Random(seed)
        training = Training(0.1 * draw.uniform(0.8, 1.2) for _ in range(500))
        status = training.measure(hopeless_below=1.5 * SAMPLES / 0.1, target_relative_error=0.0)
        assert status is TrialStatus.PRUNED
        ratios.append(throughput(training.blocks) * 0.1 / SAMPLES)
    assert statistics.stdev(ratios) > 0.01
    assert statistics.fmean(ratios) == pytest.approx(1.0, abs=0.015)


def test_a_burst_of_other_work_does_not_stop_a_promising_trial() -> None:
    training = Training([0.1], busy=lambda at_s: 1.0 < at_s < 4.0)
    status = training.measure(hopeless_below=0.9 * SAMPLES / 0.1)
    assert any(block.disturbances for block in training.blocks)
    assert status is TrialStatus.OK
    assert throughput(undisturbed(training.blocks)) == pytest.approx(SAMPLES / 0.1)


def test_disturbed_blocks_are_marked_measured_again_and_left_out() -> None:
    training = Training([0.1], busy=lambda at_s: 1.3 < at_s < 3.0, accumulate=8)
    training.measure(min_blocks=3)
    marks = [block.disturbances for block in training.blocks]
    assert marks == [(), ("contended",), ("contended",), (), ()]
    assert [block.seconds for block in training.blocks] == pytest.approx([0.5, 1.0, 1.0, 0.5, 0.5])
    assert [block.machine.outside_load for block in training.blocks if block.machine] == [0, 1, 1, 0, 0]
    assert throughput(undisturbed(training.blocks)) == pytest.approx(8 * SAMPLES / 0.1)
    assert throughput(training.blocks) < 0.8 * 8 * SAMPLES / 0.1


def test_what_a_disturbance_took_is_given_back() -> None:
    """Four seconds of a trial of twelve; the time is that of the disturbed blocks, and no more."""
    limit_s = 12.0
    quiet = Training([0.1])
    struck = Training([0.1], busy=lambda at_s: 4.0 < at_s < 8.0)
    for training in (quiet, struck):
        training.measure(target_relative_error=0.0, time_limit_s=limit_s, min_blocks=1000)
    disturbed_s = sum(block.seconds for block in struck.blocks if block.disturbances)
    assert disturbed_s == pytest.approx(4.0, abs=1.01)
    assert limit_s <= quiet.spent_s + 1e-9 < limit_s + 0.5
    assert limit_s + disturbed_s <= struck.spent_s + 1e-9 < limit_s + disturbed_s + 0.5
    assert sum(not block.disturbances for block in struck.blocks) == pytest.approx(len(quiet.blocks), abs=1)


def test_what_is_given_back_is_half_the_limit_at_the_most() -> None:
    """One quiet block, then never again."""
    training = Training([0.1], busy=lambda at_s: at_s > 1.3)
    status = training.measure(target_relative_error=0.0, time_limit_s=8.0)
    assert status is TrialStatus.OK
    assert [not block.disturbances for block in training.blocks] == [True] + [False] * (len(training.blocks) - 1)
    assert 12.0 <= training.spent_s + 1e-9 < 12.0 + 1.0


def test_a_run_waits_for_the_end_of_other_work() -> None:
    """In long steps, whose time is over before any of them was free of it."""

    def busy(at_s: float) -> bool:
        return 1.4 < at_s < 3.0

    hasty, patient = Training([0.5], busy=busy), Training([0.5], busy=busy)
    hasty.measure(time_limit_s=1.0, target_relative_error=0.0)
    patient.measure(time_limit_s=1.0, target_relative_error=0.0, waits_s=5.0)
    assert all(block.disturbances for block in hasty.blocks)
    assert [block.disturbances for block in patient.blocks[-2:]] == [(), ()]
    assert throughput(undisturbed(patient.blocks)) == pytest.approx(SAMPLES / 0.5)


def test_it_waits_no_longer_than_it_may() -> None:
    training = Training([0.5], busy=lambda _at_s: True)
    training.measure(time_limit_s=1.0, target_relative_error=0.0, waits_s=5.0)
    disturbed_s = sum(block.seconds for block in training.blocks)
    assert 5.0 <= disturbed_s < 5.0 + training.blocks[-1].seconds + 1e-9


def test_one_free_block_is_the_figure_and_the_others_say_how_well_it_is_known() -> None:
    training = Training([0.5], busy=lambda at_s: at_s > 1.6)
    training.measure(time_limit_s=1.0, target_relative_error=0.0)
    assert [block.disturbances for block in training.blocks][:2] == [(), ("contended",)]
    rates = Rates.model_validate(training.events[-1][1]["rates"])
    assert rates.sustained_per_s == pytest.approx(SAMPLES / 0.5)
    assert 0.1 < rates.sustained_error < 1.0


@pytest.mark.parametrize("other", [{}, {"hopeless_below": 0.1 * SAMPLES / 0.1}, {"min_blocks": 50}])
def test_on_a_machine_that_is_always_busy_a_trial_ends_in_time(other: dict[str, Any]) -> None:
    """Nothing is given back, and all its blocks count: they are what there is."""
    training = Training([0.1], busy=lambda _at_s: True)
    status = training.measure(time_limit_s=8.0, **other)
    assert status is TrialStatus.OK
    assert 8.0 <= training.spent_s + 1e-9 < 8.0 + 1.0
    assert all(block.disturbances for block in training.blocks)
    assert throughput(undisturbed(training.blocks)) == pytest.approx(SAMPLES / (INTRUDED * 0.1))


def test_the_machine_is_looked_at_at_the_edges_of_a_block_with_nothing_left_to_do() -> None:
    training = Training([0.1])
    training.measure(max_blocks=2, target_relative_error=0.0)
    assert [(what, steps) for what, steps, _ in training.machine.asked] == [
        ("find_workers", 9),
        ("start", 9),
        ("read", 14),
        ("start", 14),
        ("read", 19),
    ]
    assert all(queued_s == 0 for _, _, queued_s in training.machine.asked)


def test_the_loss_scale_of_every_step_is_told_where_there_is_one() -> None:
    training = Training([0.1])
    training.loss_scale = 1024.0
    training.measure(max_blocks=2, target_relative_error=0.0)
    assert [len(part.loss_scales) for part in training.steps] == [9, 5, 5]
    assert {scale for part in training.steps for scale in part.loss_scales} == {1024.0}

    training = Training([0.1])
    training.measure()
    assert not any(part.loss_scales or part.gradient_norms for part in training.steps)


def test_what_the_workload_raises_comes_through() -> None:
    def broken() -> Iterator[float]:
        yield from [0.1] * 5
        raise RuntimeError("the 7th layer is missing")

    training = Training(broken())
    with pytest.raises(RuntimeError, match="7th layer"):
        training.measure()


@pytest.mark.parametrize(
    ("times", "settled"),
    [
        ([], False),
        ([1.0], False),
        ([1.0, 1.0], False),
        ([9.0, 1.0, 1.0], True),
        ([9.0, 1.0, 1.14], True),
        ([9.0, 1.0, 1.2], False),
        ([9.0, 1.0, 0.8], False),
        ([9.0, 1.0, 0.86], True),
        ([9.0, 5.0, 3.0, 1.0, 1.0], True),
        ([9.0, 1.0, 1.0, 0.5], False),
        ([9.0, 1.0, 6.0], False),
        ([9.0, 1.0, 6.0, 1.0], False),
        ([9.0, 1.0, 6.0, 1.0, 6.0], True),
        ([1.0, 6.0, 1.0, 6.0], False),
        ([9.0, 1.0, 1.0, 1.0, 6.0, 1.0, 1.0, 1.0, 6.0], True),
    ],
)
def test_settled_means_two_stretches_alike_the_first_step_never_counted(times: list[float], settled: bool) -> None:
    assert has_settled(times) is settled


@pytest.mark.parametrize(
    ("change", "steps", "settled"),
    [(0.11, 2, False), (0.1, 2, True), (0.07, 4, True), (0.06, 64, False), (0.04, 64, True)],
)
def test_the_longer_the_stretches_the_closer_they_have_to_be(change: float, steps: int, settled: bool) -> None:
    """Alternating, so that no shorter stretch settles; `least_s` sees to the rest."""
    earlier = [0.5, 1.5] * (steps // 2)
    last = [time_s * (1 - change) for time_s in earlier]
    assert has_settled([9.0, *earlier, *last], least_s=0.9 * sum(last)) is settled


def test_stretches_that_are_too_short_show_nothing() -> None:
    times = [9.0, *[0.1] * 8]
    assert has_settled(times, least_s=0.39)
    assert not has_settled(times, least_s=0.41)
    assert has_settled([*times, *[0.1] * 8], least_s=0.41)
