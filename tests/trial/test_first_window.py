"""The first window, repeated while the scaler skips it: with steps that skip as they are told, and with a real one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from autotune.config import AmpDtype, TrainConfig
from autotune.training import StepOutput, TrainStep, build_dataloader
from autotune.trial.first_window import _MOST_SKIPS, FirstWindow
from autotune.trial.loop import Loop, Watch
from autotune.trial.timeline import HostTimeline

CPU = torch.device("cpu")
Batch = tuple[Tensor, Tensor, Tensor]


class SkippingStep:
    """Says that it skipped the first `skips` windows. Draws a dropout mask for every micro-batch, as a model does."""

    loss_scale = None

    def __init__(self, *, skips: int, accumulate: int = 1) -> None:
        self._skips = skips
        self._accumulate = accumulate
        self._calls = 0
        self.seen: list[tuple[object, list[float]]] = []
        """Batches, with the random numbers that the model drew for them."""

    def __call__(self, batch: object) -> StepOutput:
        self.seen.append((batch, functional.dropout(torch.ones(16)).tolist()))
        self._calls += 1
        windows, rest = divmod(self._calls, self._accumulate)
        stepped = rest == 0 and windows > self._skips
        return StepOutput(loss=torch.tensor(1.0), samples=1, window_closed=rest == 0, optimizer_stepped=stepped)


def plain() -> Iterator[int]:
    return itertools.count()


def augmented() -> Iterator[tuple[float, ...]]:
    """As a loader without processes makes its batches: with random numbers of the generator that the model uses too."""
    while True:
        yield tuple(torch.rand(3).tolist())


def make_loop(batches: Iterator[object], step: SkippingStep | TrainStep) -> Loop:
    torch.manual_seed(5)
    watch = Watch(timeline=HostTimeline(lambda: 0.0))
    return Loop(batches=FirstWindow(batches, CPU), step=step, clock=lambda: 0.0, synchronise=lambda: None, watch=watch)


def train(
    batches: Iterator[object], *, skips: int, steps: int, accumulate: int = 1
) -> list[tuple[object, list[float]]]:
    """What the model saw, and the random numbers that it drew."""
    step = SkippingStep(skips=skips, accumulate=accumulate)
    loop = make_loop(batches, step)
    for _ in range(steps):
        loop.optimizer_step()
    return step.seen


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("skips", [0, 1, 5])
def test_the_first_window_comes_again_until_it_is_not_skipped(skips: int, accumulate: int) -> None:
    seen = [batch for batch, _ in train(plain(), skips=skips, steps=skips + 3, accumulate=accumulate)]
    first = list(range(accumulate))
    assert seen == first * skips + list(range(3 * accumulate))


@pytest.mark.parametrize("make_batches", [plain, augmented])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("skips", [1, 5])
def test_from_the_last_repetition_on_all_is_as_if_nothing_had_been_skipped(
    skips: int, accumulate: int, make_batches: Callable[[], Iterator[object]]
) -> None:
    """Batches and dropout masks."""
    without = train(make_batches(), skips=0, steps=4, accumulate=accumulate)
    repeated = train(make_batches(), skips=skips, steps=skips + 4, accumulate=accumulate)
    assert len({tuple(mask) for _, mask in without}) > 1
    assert repeated[: accumulate * skips] == without[:accumulate] * skips
    assert repeated[accumulate * skips :] == without


def test_a_window_that_is_skipped_later_does_not_come_again() -> None:
    step = SkippingStep(skips=0)
    window = FirstWindow(plain(), CPU)
    step(next(window))
    window.window_closed(skipped=False)
    for number in (1, 2, 3):
        assert next(window) == number
        window.window_closed(skipped=True)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_scaler_that_finds_no_scale_is_given_up(accumulate: int) -> None:
    """From 65536 it has come down to 2⁻¹⁶ by then."""
    seen = [batch for batch, _ in train(plain(), skips=10**6, steps=_MOST_SKIPS + 3, accumulate=accumulate)]
    repeated = list(range(accumulate)) * _MOST_SKIPS
    assert seen == repeated + list(range(accumulate, 4 * accumulate))


def test_batches_that_are_over_are_over_here_too() -> None:
    window = FirstWindow(iter([1, 2]), CPU)
    assert list(window) == [1, 2]


class Points(Dataset[Batch]):
    """Sixteen windows of samples, each with a weight of its own, the first with the largest: their losses tell them
    apart, and the scale that the first finds does for the others."""

    def __init__(self, samples_per_window: int, *, jitter: bool) -> None:
        generator = torch.Generator().manual_seed(3)
        samples = 16 * samples_per_window
        self._inputs = torch.randn(samples, 6, generator=generator)
        self._targets = torch.randint(0, 3, (samples,), generator=generator)
        weights = 0.2 + 0.8 * torch.rand(16, generator=generator)
        weights[0] = 4.0
        self._weights = weights.repeat_interleave(samples_per_window)
        self._jitter = jitter

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, index: int) -> Batch:
        jitter = torch.randn(6) if self._jitter else torch.zeros(6)
        return self._inputs[index] + jitter, self._targets[index], self._weights[index]


def loud_loss(model: nn.Module, batch: Batch) -> Tensor:
    """So large that its gradient overflows in fp16 under the scaler's first scales."""
    inputs, targets, weights = batch
    return 1e3 * (weights * functional.cross_entropy(model(inputs), targets, reduction="none")).mean()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Two of them wait for each other for longer than they compute, where anything else runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def losses_of(amp_dtype: AmpDtype, *, accumulate: int, dropout: float, jitter: bool) -> tuple[list[float], list[bool]]:
    """Of a dozen optimizer steps that are taken, and whether each of all was skipped."""
    torch.manual_seed(11)
    model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Dropout(dropout), nn.Linear(32, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    config = TrainConfig(amp_dtype=amp_dtype, micro_batch_size=4, grad_accum_steps=accumulate)
    step = TrainStep(model, optimizer, loud_loss, config, device=CPU)
    loader: DataLoader[Batch] = build_dataloader(
        Points(4 * accumulate, jitter=jitter), config, device=CPU, shuffle=False
    )
    loop = make_loop(iter(loader), step)
    losses: list[float] = []
    skipped: list[bool] = []
    while len(losses) < 12:
        loop.optimizer_step()
        said = loop.harvest()
        skipped += said.skipped
        losses += [] if said.skipped[0] else said.losses
        assert len(skipped) < 60
    return losses, skipped


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("jitter", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_losses_in_fp16_line_up_with_those_in_fp32_sample_for_sample(
    accumulate: int, dropout: float, jitter: bool
) -> None:
    expected, none_skipped = losses_of("none", accumulate=accumulate, dropout=dropout, jitter=jitter)
    losses, skipped = losses_of("fp16", accumulate=accumulate, dropout=dropout, jitter=jitter)
    skips = skipped.index(False)
    assert not any(none_skipped)
    assert skips > 3, "the first gradients overflow"
    assert not any(skipped[skips:])
    assert losses == pytest.approx(expected, rel=0.02)
    assert losses[1:] != pytest.approx(expected[:-1], rel=0.1), "one step further they would not line up"
