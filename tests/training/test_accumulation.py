"""The train step against one large batch: same gradients, same loss, however the samples are cut up."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from toy_training import Batch, cut, draw, make_step, mean_loss, small_model

from autotune.training import MeanOfMeans


def summed_loss(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    return functional.cross_entropy(model(batch[0]), batch[1], reduction="sum"), len(batch[1])


def token_loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Class 0 is padding, so that counts differ from sample counts and are tensors."""
    real = batch[1] != 0
    losses = functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
    return (losses * real).sum(), real.sum()


def token_reference(model: nn.Module, batch: Batch) -> Tensor:
    summed, count = token_loss(model, batch)
    return summed / count


@pytest.mark.parametrize("clip", [None, 0.01])
@pytest.mark.parametrize(
    ("loss_fn", "reference_loss"),
    [(mean_loss, mean_loss), (summed_loss, mean_loss), (token_loss, token_reference)],
)
@pytest.mark.parametrize(
    ("sizes", "grad_accum_steps"),
    [
        pytest.param([12], 1, id="no accumulation"),
        pytest.param([4, 4, 4], 3, id="equal"),
        pytest.param([5, 5, 1], 3, id="shorter last micro-batch"),
        pytest.param([2, 6, 3], 3, id="unequal"),
        pytest.param([4, 4], 5, id="shorter last window"),
        pytest.param([4, 4, 3], 5, id="shorter last window with a shorter last micro-batch"),
    ],
)
def test_a_window_gives_the_gradient_and_loss_of_one_large_batch(
    sizes: list[int], grad_accum_steps: int, loss_fn: Any, reference_loss: Any, clip: float | None
) -> None:
    batch = draw(sum(sizes))
    model, expected = small_model(), small_model()
    optimizer = torch.optim.SGD(expected.parameters(), lr=1.0)
    loss = reference_loss(expected, batch)
    loss.backward()
    if clip is not None:
        nn.utils.clip_grad_norm_(expected.parameters(), clip)
    optimizer.step()

    step = make_step(model, loss_fn, clip=clip, grad_accum_steps=grad_accum_steps)
    outputs = [step(part) for part in cut(batch, sizes)]
    last = outputs[-1] if len(sizes) == grad_accum_steps else step.finish()

    assert last is not None
    assert last.window_closed
    assert last.optimizer_stepped
    assert last.samples == sum(sizes)
    assert last.loss.item() == pytest.approx(loss.item(), abs=1e-12)
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_calls_before_the_window_closes_report_their_micro_batch_and_change_nothing() -> None:
    model = small_model()
    before = copy.deepcopy(model.state_dict())
    step = make_step(model, grad_accum_steps=3)
    batch = draw(4)
    output = step(batch)

    assert (output.window_closed, output.optimizer_stepped, output.samples) == (False, False, 4)
    assert output.loss.item() == pytest.approx(mean_loss(model, batch).item())
    assert not output.loss.requires_grad
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_finish_without_an_open_window_does_nothing() -> None:
    step = make_step(small_model(), grad_accum_steps=2)
    assert step.finish() is None
    step(draw(2))
    step(draw(2))
    assert step.finish() is None


def test_a_micro_batch_of_padding_alone_adds_nothing() -> None:
    model = small_model()
    padding = (draw(4)[0], torch.zeros(4, dtype=torch.long))
    step = make_step(model, token_loss, grad_accum_steps=2)
    assert step(padding).loss.item() == 0.0
    real = draw(6)
    output = step(real)
    assert output.loss.item() == pytest.approx(token_reference(small_model(), real).item())


def per_token(model: nn.Module, tokens: Tensor) -> Tensor:
    return model(tokens).mean()


def per_token_counted(model: nn.Module, tokens: Tensor) -> tuple[Tensor, int]:
    return model(tokens).sum(), tokens.numel()


def lengths(*each: int) -> list[Tensor]:
    return [torch.ones(2, length, 1) for length in each]


def test_micro_batches_of_other_lengths_are_noticed_where_the_loss_is_a_mean() -> None:
    step = make_step(nn.Linear(1, 1), per_token, grad_accum_steps=2)
    first, second, third, fourth = lengths(3, 3, 5, 4)
    step(first), step(second)
    assert step.unequal is None, "windows may differ from one another"
    step(third)
    with pytest.warns(MeanOfMeans, match=r"Return \(summed_loss, count\)"):
        step(fourth)
    assert step.unequal == (((5, 1),), ((4, 1),))


@pytest.mark.parametrize(("loss_fn", "grad_accum_steps"), [(per_token_counted, 2), (per_token, 1)])
def test_where_lengths_do_not_matter_nothing_is_said(loss_fn: Any, grad_accum_steps: int) -> None:
    step = make_step(nn.Linear(1, 1), loss_fn, grad_accum_steps=grad_accum_steps)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for batch in lengths(3, 5, 4, 2):
            step(batch)
    assert step.unequal is None
