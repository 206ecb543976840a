"""What a train step tells its observer: which phase is over, and the gradient that the optimizer is about to use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_training import CPU, Batch, cut, draw, mean_loss, small_model

from autotune.config import TrainConfig
from autotune.training import StepMark, StepObserver, TrainStep


class Notes(StepObserver):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.gradients: list[list[Tensor]] = []

    def mark(self, phase: StepMark) -> None:
        self.said.append(phase)

    def look_at_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        self.said.append("gradients")
        self.gradients.append([p.grad.clone() for p in parameters if p.grad is not None])


def observed_step(
    model: nn.Module, notes: StepObserver | None, loss_fn: Any = mean_loss, *, clip: float | None = None, **config: Any
) -> TrainStep:
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return TrainStep(model, optimizer, loss_fn, TrainConfig(**config), device=CPU, clip_grad_norm=clip, observer=notes)


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def single(samples: int) -> Batch:
    inputs, targets = draw(samples)
    return inputs.float(), targets


def gradient_of(model: nn.Module, batch: Batch) -> list[Tensor]:
    """Of one large batch, in plain fp32, the model left as it was."""
    return list(torch.autograd.grad(mean_loss(model, batch), list(model.parameters())))


@pytest.mark.parametrize("amp_dtype", ["none", "bf16", "fp16"])
@pytest.mark.parametrize("grad_accum_steps", [1, 3])
def test_each_micro_batch_is_copied_and_computed_and_the_optimizer_comes_once(
    grad_accum_steps: int, amp_dtype: str
) -> None:
    notes = Notes()
    step = observed_step(linear(), notes, amp_dtype=amp_dtype, grad_accum_steps=grad_accum_steps, clip=1.0)
    window = [*["copy", "forward_backward"] * grad_accum_steps, "gradients", "optimizer"]
    for windows in (1, 2):
        for _ in range(grad_accum_steps):
            step(single(4))
        assert notes.said == window * windows


def test_a_window_that_the_epochs_end_left_short_is_told_like_any() -> None:
    notes = Notes()
    step = observed_step(linear(), notes, grad_accum_steps=3)
    step(single(4))
    step.finish()
    assert notes.said == ["copy", "forward_backward", "gradients", "optimizer"]
    step.finish()
    assert len(notes.said) == 4


def test_what_is_marked_is_done() -> None:
    """Where the model runs, the batch has been copied; the optimizer's mark comes after its step."""
    notes = Notes()
    model = linear()
    before = model.weight.detach().clone()
    seen: list[list[str]] = []
    model.register_forward_pre_hook(lambda *_: seen.append(list(notes.said)))

    class Strict(Notes):
        def mark(self, phase: StepMark) -> None:
            notes.mark(phase)
            if phase == "forward_backward":
                assert model.weight.grad is not None
                assert torch.equal(model.weight, before)
            if phase == "optimizer":
                assert not torch.equal(model.weight, before)

    observed_step(model, Strict())(single(4))
    assert seen == [["copy"]]


@pytest.mark.parametrize("clip", [None, 1e-3])
@pytest.mark.parametrize(("sizes", "grad_accum_steps"), [([12], 1), ([4, 4, 4], 3), ([2, 6, 3], 3), ([5, 3], 2)])
def test_the_gradient_is_that_of_the_window_and_not_yet_clipped(
    sizes: list[int], grad_accum_steps: int, clip: float | None
) -> None:
    notes = Notes()
    model = small_model()
    batch = draw(sum(sizes))
    expected = gradient_of(model, batch)
    step = observed_step(model, notes, clip=clip, grad_accum_steps=grad_accum_steps)
    for part in cut(batch, sizes):
        step(part)
    (gradient,) = notes.gradients
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_the_gradient_is_without_the_loss_scale(clip: float | None) -> None:
    notes = Notes()
    model = linear()
    batch = single(12)
    expected = gradient_of(model, batch)
    step = observed_step(model, notes, clip=clip, amp_dtype="fp16", grad_accum_steps=2)
    outputs = [step(part) for part in cut(batch, [7, 5])]
    assert outputs[-1].optimizer_stepped
    (gradient,) = notes.gradients
    torch.testing.assert_close(gradient, expected, rtol=1e-2, atol=1e-3)


def overflowing(model: nn.Module, batch: Batch) -> Tensor:
    return 1e4 * mean_loss(model, batch)


def test_a_gradient_that_the_scaler_will_refuse_is_shown_as_it_is() -> None:
    notes = Notes()
    step = observed_step(linear(), notes, overflowing, amp_dtype="fp16", clip=1.0)
    output = step(single(4))
    assert not output.optimizer_stepped
    assert not all(bool(torch.isfinite(part).all()) for part in notes.gradients[0])
    assert notes.said == ["copy", "forward_backward", "gradients", "optimizer"]


@pytest.mark.parametrize("amp_dtype", ["none", "bf16"])
def test_without_a_scaler_there_is_no_loss_scale(amp_dtype: str) -> None:
    step = observed_step(linear(), None, amp_dtype=amp_dtype)
    assert step.loss_scale is None
    step(single(4))
    assert step.loss_scale is None


def test_the_loss_scale_is_the_scalers_after_each_step() -> None:
    """It starts at 65536 and halves whenever a step overflows."""
    step = observed_step(linear(), None, overflowing, amp_dtype="fp16", grad_accum_steps=2)
    assert step.loss_scale is None
    step(single(4))
    assert step.loss_scale is None, "no optimizer step yet"
    scales, taken = [], []
    for micro_batch in range(29):
        output = step(single(4))
        if micro_batch % 2 == 0:
            assert output.window_closed
            scales.append(step.loss_scale)
            taken.append(output.optimizer_stepped)
            assert step._scaler is not None
            assert step.loss_scale == step._scaler.get_scale()
    skips = taken.index(True)
    assert skips > 3
    assert scales[:skips] == [65536.0 / 2 ** (skip + 1) for skip in range(skips)]
    assert scales[skips] == scales[skips - 1], "a step that is taken leaves it alone"


def test_an_observer_changes_nothing() -> None:
    models = [small_model(), small_model()]
    for model, notes in zip(models, (None, Notes()), strict=True):
        step = observed_step(model, notes, clip=0.1, grad_accum_steps=2)
        for part in cut(draw(8), [5, 3]):
            step(part)
    for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(ours, theirs)
