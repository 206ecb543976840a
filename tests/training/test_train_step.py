"""The train step beyond accumulation: number formats, no waiting for the device, what it refuses."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from toy_training import CPU, Batch, cut, draw, make_step, mean_loss, small_model

from autotune.config import TrainConfig
from autotune.training import SettingHasNoEffect, TrainStep


def test_a_window_begins_without_gradients_and_leaves_its_own() -> None:
    """As after `optimizer.step()` in a loop by hand: they are there to be looked at until the next forward pass."""
    model = small_model()
    step = make_step(model)
    alive: list[bool] = []
    model.register_forward_pre_hook(lambda *_: alive.append(any(p.grad is not None for p in model.parameters())))
    for _ in range(2):
        step(draw(4))
        assert all(parameter.grad is not None for parameter in model.parameters())
    assert alive == [False, False]


class _Spy(torch.autograd.Function):
    """Notes whether autocast is on, in forward and in backward."""

    seen: tuple[list[bool], list[bool]] = ([], [])

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        _Spy.seen[0].append(torch.is_autocast_enabled("cpu"))
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        _Spy.seen[1].append(torch.is_autocast_enabled("cpu"))
        return gradients[0]


@pytest.mark.parametrize(("amp_dtype", "dtype"), [("none", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_covers_forward_and_loss_but_not_backward(amp_dtype: str, dtype: torch.dtype) -> None:
    _Spy.seen = ([], [])
    model = nn.Linear(4, 3)
    outputs: list[torch.dtype] = []

    def loss_fn(model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch[0])
        outputs.append(logits.dtype)
        return _Spy.apply(functional.cross_entropy(logits, batch[1]))  # type: ignore[no-any-return, no-untyped-call]

    output = make_step(model, loss_fn, amp_dtype=amp_dtype)((draw(4)[0].float(), draw(4)[1]))
    assert outputs == [dtype]
    assert _Spy.seen == ([amp_dtype != "none"], [False])
    assert output.loss.dtype == torch.float32


@pytest.mark.parametrize("fused", [False, True])
def test_an_overflow_in_fp16_skips_the_step_and_leaves_the_weights(fused: bool) -> None:
    model = nn.Linear(4, 3)
    before = copy.deepcopy(model.state_dict())
    factor = 1e38

    def loss_fn(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch).float().mean() * factor

    config = TrainConfig(amp_dtype="fp16", grad_accum_steps=2, fused_optimizer=fused)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, fused=fused)
    step = TrainStep(model, optimizer, loss_fn, config, device=CPU, clip_grad_norm=1.0)
    step(torch.ones(2, 4))
    skipped = step(torch.ones(1, 4))
    assert (skipped.window_closed, skipped.optimizer_stepped) == (True, False)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())

    factor = 1.0
    step(torch.ones(2, 4))
    assert step(torch.ones(2, 4)).optimizer_stepped
    assert not torch.equal(model.weight, before["weight"])


def test_the_loss_scale_does_not_reach_the_gradients() -> None:
    models = [nn.Linear(4, 3), nn.Linear(4, 3)]
    models[1].load_state_dict(models[0].state_dict())
    batch = (draw(8)[0].float(), draw(8)[1])
    for model, amp_dtype in zip(models, ("none", "fp16"), strict=True):
        step = make_step(model, amp_dtype=amp_dtype, grad_accum_steps=3, clip=0.5)
        for part in cut(batch, [3, 3, 2]):
            step(part)
    torch.testing.assert_close(models[0].weight, models[1].weight, rtol=0, atol=2e-3)


@pytest.mark.parametrize("amp_dtype", ["none", "bf16"])
@pytest.mark.parametrize("sizes", [[4, 4], [4, 2]])
def test_no_value_is_read_back_from_the_device(
    monkeypatch: pytest.MonkeyPatch, amp_dtype: str, sizes: list[int]
) -> None:
    step = make_step(small_model().float(), amp_dtype=amp_dtype, grad_accum_steps=2, clip=1.0)
    batch = draw(sum(sizes))
    parts = cut((batch[0].float(), batch[1]), sizes)

    def refuse(*_: Any) -> Any:
        raise AssertionError("the device was waited for")

    for name in ("item", "tolist", "numpy", "__float__", "__int__", "__bool__", "__index__"):
        monkeypatch.setattr(Tensor, name, refuse)
    outputs = [step(part) for part in parts]
    monkeypatch.undo()
    assert outputs[-1].optimizer_stepped


@pytest.mark.parametrize("returned", [torch.ones(2), 1.0, None, (torch.ones(2), 2)])
def test_a_loss_that_is_no_scalar_is_refused(returned: Any) -> None:
    with pytest.raises(TypeError, match=r"scalar tensor, or \(summed_loss, count\)"):
        make_step(small_model(), lambda model, batch: returned)(draw(2))


def test_a_fused_configuration_needs_a_fused_optimizer() -> None:
    model = nn.Linear(4, 3)
    config = TrainConfig(fused_optimizer=True)
    with pytest.raises(SettingHasNoEffect, match="build SGD with fused=True"):
        TrainStep(model, torch.optim.SGD(model.parameters()), mean_loss, config, device=CPU)
    fused = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    step = TrainStep(model, fused, mean_loss, config, device=CPU)
    assert step((draw(4)[0].float(), draw(4)[1])).optimizer_stepped


def two_losses(model: nn.Module, batch: Batch) -> Any:
    outputs = model(batch[0])
    return functional.cross_entropy(outputs, batch[1]), outputs.square().mean()


@pytest.mark.parametrize("grad_accum_steps", [1, 2])
def test_two_losses_are_refused_in_words(grad_accum_steps: int) -> None:
    model = small_model()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TypeError, match=r"two losses: a pair is read as \(summed_loss, count\).+Return their sum"):
        make_step(model, two_losses, grad_accum_steps=grad_accum_steps)(draw(4))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("second", [0.3, torch.tensor(0.3), True, -3, math.nan, math.inf, None, {"accuracy": 1}])
def test_a_metric_beside_the_loss_is_no_count(second: Any) -> None:
    with pytest.raises(TypeError, match=r"read as \(summed_loss, count\), and its count, .+Return the loss alone"):
        make_step(small_model(), lambda model, batch: (mean_loss(model, batch), second))(draw(4))


@pytest.mark.parametrize("count", [4, 4.5, torch.tensor(4), torch.tensor([4.0]), 0])
def test_a_count_is_one(count: Any) -> None:
    step = make_step(small_model(), lambda model, batch: (4 * mean_loss(model, batch), count))
    assert step(draw(4)).optimizer_stepped


@pytest.mark.parametrize("returned", [lambda a, b: (a, b, b), lambda a, b: [a, b], lambda a, b: {"a": a, "b": b}])
def test_several_losses_in_any_form_are_refused(returned: Any) -> None:
    with pytest.raises(TypeError, match=r"it returned (tuple|list|dict); add several losses up to one"):
        make_step(small_model(), lambda model, batch: returned(*two_losses(model, batch)))(draw(4))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda loss: None, r"it returned None: a return statement is missing"),
        (lambda loss: loss.item(), r"it returned a float; return the tensor itself, without \.item\(\)"),
        (lambda loss: loss.detach(), r"the loss requires no gradient: the loss function detaches it"),
        (lambda loss: loss.repeat(3), r"it returned a tensor of shape \(3,\); return its mean, or its sum"),
        (lambda loss: {"loss": loss, "logits": loss}, r'it returned dict; return the loss in it: output\["loss"\]'),
        (lambda loss: SimpleNamespace(loss=loss), r"it returned SimpleNamespace; return the loss in it: output\.loss"),
    ],
)
def test_what_is_no_loss_says_what_to_return_instead(returned: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make_step(small_model(), lambda model, batch: returned(mean_loss(model, batch)))(draw(4))


def test_a_count_without_a_gradient_is_a_count() -> None:
    def counted(model: nn.Module, batch: Batch) -> Any:
        each = functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
        return each.sum(), (batch[1] >= 0).sum()

    ours, theirs = (make_step(small_model(), loss)(draw(4)).loss for loss in (counted, mean_loss))
    assert torch.allclose(ours, theirs)


class _OwnCriterion(nn.Module):
    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, target)


class _OwnLoss(nn.Module):
    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        return mean_loss(model, batch)


@pytest.mark.parametrize("criterion", [nn.CrossEntropyLoss(), nn.MSELoss, functional.cross_entropy, _OwnCriterion()])
def test_a_criterion_is_no_loss_function_and_is_told_so(criterion: Any) -> None:
    with pytest.raises(
        TypeError, match=r"loss_fn: \w+ is a criterion, called with outputs and targets; write a function"
    ):
        make_step(small_model(), criterion)


def test_a_loss_function_may_be_a_module() -> None:
    assert make_step(small_model(), _OwnLoss())(draw(4)).optimizer_stepped
