"""Warm-up and timed blocks, on a clock that only the fake training moves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from support.simulation import Clock

from autotune.config import TrainConfig
from autotune.records import Block, OptimizerSteps, TrialRequest, WarmUp
from autotune.stats import throughput
from autotune.training import StepOutput
from autotune.trial.failure import Diverged
from autotune.trial.timing import Loop, Measurement, has_settled

SAMPLES = 8


class Training:
    """Optimizer steps that take what `step_times_s` says, the last for ever, after waiting `wait_s` for each batch.

    A device of its own: a step only queues its work, and `synchronise` waits for it.
    """

    def __init__(
        self,
        step_times_s: Iterable[float],
        *,
        wait_s: float = 0.0,
        losses: Iterable[float] = (),
        accumulate: int = 1,
        skipped: Iterable[bool] = (),
    ) -> None:
        self.clock = Clock()
        self.synchronised_at: list[int] = []
        self.batches_taken = 0
        self._times = _then_the_last(step_times_s)
        self._wait_s = wait_s
        self._losses = itertools.chain(losses, itertools.repeat(1.0))
        self._skipped = itertools.chain(skipped, itertools.repeat(False))
        self._accumulate = accumulate
        self._queued_s = 0.0
        self.loop = Loop(batches=self._batches(), step=self._step, clock=self.clock, synchronise=self._synchronise)
        self.events: list[tuple[str, dict[str, Any]]] = []

    def measure(
        self, head_start_spent: Callable[[], bool] = lambda: True, *, time_limit_s: float = 10.0, **request: Any
    ) -> None:
        asked = TrialRequest(config=TrainConfig(), seed=0, time_limit_s=time_limit_s, **request)
        Measurement(self.loop, asked, lambda *event: self.events.append(event)).run(head_start_spent)

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

    def _batches(self) -> Iterator[int]:
        for number in itertools.count():
            self.clock.advance(self._wait_s)
            self.batches_taken += 1
            yield number

    def _step(self, batch: int) -> StepOutput:
        closed = (batch + 1) % self._accumulate == 0
        self._queued_s += next(self._times) / self._accumulate
        return StepOutput(
            loss=torch.tensor(next(self._losses) if closed else math.nan),
            samples=SAMPLES * self._accumulate if closed else SAMPLES,
            window_closed=closed,
            optimizer_stepped=closed and not next(self._skipped),
        )

    def _synchronise(self) -> None:
        self.clock.advance(self._queued_s)
        self._queued_s = 0.0
        self.synchronised_at.append(self.loop.steps_done)


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
    assert warm_up.steps == 3
    assert warm_up.seconds == pytest.approx(30.2)
    assert warm_up.settled
    assert all(block.seconds == pytest.approx(0.1 * block.steps) for block in training.blocks)


def test_compiling_takes_no_time_from_the_measurement() -> None:
    """The limit counts from the end of the first step."""
    quick, compiled = Training([0.1]), Training([500.0, 0.1])
    for training in (quick, compiled):
        training.measure(target_relative_error=0.0, time_limit_s=10.0)
    assert len(compiled.blocks) == len(quick.blocks)
    assert compiled.warm_up.settled


def test_warm_up_goes_on_while_steps_grow_faster() -> None:
    training = Training([1.0, 0.8, 0.5, 0.3, 0.2, 0.19])
    training.measure(time_limit_s=100.0)
    assert training.warm_up.steps == 6
    assert training.warm_up.settled


def test_warm_up_outlasts_the_loaders_head_start() -> None:
    training = Training([0.1])
    training.measure(lambda: training.batches_taken >= 20)
    assert training.warm_up.steps == 20
    assert training.warm_up.settled


def test_a_warm_up_that_never_settles_ends_at_its_share_and_says_so() -> None:
    training = Training([1.0, *([0.1, 0.5] * 100)])
    training.measure(time_limit_s=10.0)
    assert not training.warm_up.settled
    assert 0.3 * 10.0 <= training.warm_up.seconds - 1.0 <= 0.4 * 10.0 + 0.5
    assert training.blocks


def test_a_head_start_that_never_ends_does_not_eat_the_whole_trial() -> None:
    training = Training([0.1])
    training.measure(lambda: False, time_limit_s=10.0)
    assert not training.warm_up.settled
    assert training.warm_up.seconds <= 0.4 * 10.0 + 0.3
    assert len(training.blocks) >= 3


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
def test_a_block_whose_steps_became_slower_is_cut_after_twice_its_time(
    monkeypatch: pytest.MonkeyPatch, slow_s: float, steps: int
) -> None:
    """Planned: five steps of 0.1 s. Each step is waited for here, as on a CPU."""
    training = Training([0.1] * 8 + [slow_s])
    step = training.loop.step

    def waited_for(batch: Any) -> StepOutput:
        out = step(batch)
        training.loop.synchronise()
        return out

    monkeypatch.setattr(training.loop, "step", waited_for)
    training.measure(max_blocks=3, target_relative_error=0.0, time_limit_s=100.0)
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


def test_waiting_for_data_is_inside_the_block_and_reported_apart() -> None:
    training = Training([0.06], wait_s=0.04)
    training.measure()
    for block in training.blocks:
        assert block.seconds == pytest.approx(0.1 * block.steps)
        assert block.data_wait_s == pytest.approx(0.04 * block.steps)


def test_without_waiting_there_is_no_wait() -> None:
    training = Training([0.1])
    training.measure()
    assert all(block.data_wait_s == 0 for block in training.blocks)


def test_the_device_is_waited_for_at_the_edges_of_a_block_only() -> None:
    training = Training([0.1])
    training.measure(max_blocks=3, target_relative_error=0.0)
    after_warm_up = training.synchronised_at[training.warm_up.steps :]
    assert after_warm_up == [3, 8, 8, 13, 13, 18], "two edges a block of five steps"


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
    assert [len(part.losses) for part in training.steps] == [3, 5, 5]
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
    request = TrialRequest(config=TrainConfig(), seed=0, time_limit_s=10.0, max_blocks=3, target_relative_error=0.0)
    Measurement(training.loop, request, lambda *_event: seen.append(training.loop.steps_done)).run(lambda: True)
    assert seen == [3, 8, 13, 18]


def test_a_steady_trial_ends_at_its_fewest_blocks() -> None:
    training = Training([0.1])
    training.measure(target_relative_error=0.02, min_blocks=3)
    assert len(training.blocks) == 3
    training = Training([0.1])
    training.measure(target_relative_error=0.02, min_blocks=6)
    assert len(training.blocks) == 6


def test_a_noisy_trial_goes_on_until_its_error_is_small_enough() -> None:
    """Warm-up of three equal steps, then blocks of five that differ by turns: the error falls as blocks come."""
    noise = itertools.chain([0.1] * 3, itertools.cycle([*[0.09] * 5, *[0.11] * 5]))
    rough = Training(noise)
    rough.measure(target_relative_error=0.04, time_limit_s=1000.0)
    noise = itertools.chain([0.1] * 3, itertools.cycle([*[0.09] * 5, *[0.11] * 5]))
    fine = Training(noise)
    fine.measure(target_relative_error=0.01, time_limit_s=1000.0)
    assert 3 < len(rough.blocks) < len(fine.blocks) < 200


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


def test_a_soak_without_any_time_limit_trains_its_steps_and_no_more() -> None:
    training = Training([0.1])
    training.measure(min_steps=50, time_limit_s=0.0)
    assert training.loop.steps_done == 50


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", [1, 2, 3, 4, 8, 11])
def test_divergence_names_its_step(step: int, bad: float) -> None:
    training = Training([0.1], losses=[1.0] * (step - 1) + [bad])
    with pytest.raises(Diverged, match=rf"^the loss is {bad} at optimizer step {step}$"):
        training.measure(target_relative_error=0.0)


def test_blocks_before_the_divergence_are_reported() -> None:
    training = Training([0.1], losses=[1.0] * 13 + [math.nan])
    with pytest.raises(Diverged):
        training.measure(target_relative_error=0.0)
    assert [name for name, _ in training.events] == ["warm", "block", "block"]


@pytest.mark.parametrize("period", [[0.006, 0.036], [0.036, 0.006], [0.006, 0.006, 0.006, 0.066]])
def test_loads_that_alternate_have_their_true_throughput(period: list[float]) -> None:
    """A loader with two processes: every second step stalls. The mean is 21 ms, whatever the last step of the warm-up
    makes of the length of a block."""
    training = Training(itertools.chain([1.0], itertools.cycle(period)))
    training.measure(time_limit_s=20.0)
    mean_s = sum(period) / len(period)
    assert throughput(training.blocks) == pytest.approx(SAMPLES / mean_s, rel=0.03)


def test_what_the_workload_raises_comes_through() -> None:
    training = Training([0.1])

    def broken(batch: Any) -> StepOutput:
        raise RuntimeError("the 7th layer is missing")

    training.loop.step = broken
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
    ],
)
def test_settled_means_the_last_two_alike_the_first_never_counted(times: list[float], settled: bool) -> None:
    assert has_settled(times) is settled
