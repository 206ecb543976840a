"""Public bug reports about accumulation, mixed precision and small batches, tried on our training step."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from autotune.config import TrainConfig
from autotune.records import TrialStatus
from autotune.training import TrainStep, build_dataloader
from autotune.training.errors import MeanOfMeans
from autotune.trial.failure import classify, describe

CPU = torch.device("cpu")
PAD = -1


def train_step(
    model: nn.Module, loss_fn: Any, *, lr: float = 1.0, clip: float | None = None, **config: Any
) -> TrainStep:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return TrainStep(model, optimizer, loss_fn, TrainConfig(**config), device=CPU, clip_grad_norm=clip)


def weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def tokens(length: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(1, length, 4, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(0, 3, (1, length), generator=generator)


def padded(*sequences: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    longest = max(inputs.shape[1] for inputs, _ in sequences)
    inputs = [functional.pad(each, (0, 0, 0, longest - each.shape[1])) for each, _ in sequences]
    targets = [functional.pad(each, (0, longest - each.shape[1]), value=PAD) for _, each in sequences]
    return torch.cat(inputs), torch.cat(targets)


def mean_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten(), ignore_index=PAD)


def summed_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    logits, targets = model(batch[0]).flatten(0, 1), batch[1].flatten()
    return functional.cross_entropy(logits, targets, reduction="sum", ignore_index=PAD), (targets != PAD).sum()


def test_two_sequences_of_11_and_101_tokens_train_alike_together_and_one_by_one() -> None:
    # https://github.com/huggingface/transformers/issues/24725: a token of the short one had ten times the gradient.
    short, long = tokens(11, seed=1), tokens(101, seed=2)
    torch.manual_seed(0)
    together = nn.Linear(4, 3).double()
    one_by_one, by_means = copy.deepcopy(together), copy.deepcopy(together)
    train_step(together, summed_loss, micro_batch_size=2)(padded(short, long))
    step = train_step(one_by_one, summed_loss, micro_batch_size=1, grad_accum_steps=2)
    assert not step(short).window_closed
    assert step(long).window_closed
    torch.testing.assert_close(weights(one_by_one), weights(together))

    step = train_step(by_means, mean_loss, micro_batch_size=1, grad_accum_steps=2)
    step(short)
    with pytest.warns(MeanOfMeans):
        step(long)
    assert not torch.allclose(weights(by_means), weights(together))


def test_what_is_left_at_the_end_of_an_epoch_is_the_mean_over_what_is_there() -> None:
    # https://github.com/Lightning-AI/pytorch-lightning/issues/19987: five micro-batches in windows of four; the last
    # alone was divided by four.
    def loss_fn(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch).mean()

    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    step = train_step(model, loss_fn, micro_batch_size=2, grad_accum_steps=4)
    data = torch.randn(10, 4).split(2)
    closed = [step(batch).window_closed for batch in data]
    assert closed == [False, False, False, True, False]
    before = weights(model)
    assert step.finish() is not None
    torch.testing.assert_close(before[:4] - weights(model)[:4], data[-1].mean(0))


@pytest.mark.parametrize("amp_dtype", ["none", "fp16"])
def test_gradients_are_clipped_after_the_loss_scale_is_taken_out(amp_dtype: str) -> None:
    # https://github.com/pytorch/examples/issues/1196: of scaled gradients, 65,536 times as large, hardly anything was
    # left. The gradient here is 100 long in either precision.
    def loss_fn(model: nn.Module, _batch: Tensor) -> Tensor:
        return 100 * model.weight.sum()

    model = nn.Linear(1, 1, bias=False)
    before = weights(model)
    train_step(model, loss_fn, clip=0.5, micro_batch_size=2, amp_dtype=amp_dtype)(torch.ones(2, 1))
    torch.testing.assert_close(before - weights(model), torch.tensor([0.5]), rtol=1e-4, atol=0)


def test_a_last_batch_of_one_sample_never_meets_batch_norm() -> None:
    # https://github.com/pytorch/pytorch/issues/4534: 33 samples in batches of 16 end in one that BatchNorm refuses.
    def loss_fn(model: nn.Module, batch: list[Tensor]) -> Tensor:
        return model(batch[0]).square().mean()

    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
    step = train_step(model, loss_fn, lr=0.01, micro_batch_size=16)
    loader = build_dataloader(TensorDataset(torch.randn(33, 4)), TrainConfig(micro_batch_size=16), device=CPU)
    assert [step(batch).samples for batch in loader] == [16, 16]


def test_a_micro_batch_of_one_sample_fails_with_the_reason() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
    step = train_step(model, lambda model, batch: model(batch).mean(), micro_batch_size=1)
    with pytest.raises(ValueError, match="more than 1 value per channel") as caught:
        step(torch.randn(1, 4))
    assert classify(caught.value) is TrialStatus.FAILED
    assert "more than 1 value per channel" in describe(caught.value).reason


class Layer(nn.Linear):
    """Notes a tensor of each of its calls."""

    seen: list[weakref.ref[Tensor]]

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = super().forward(inputs)
        self.seen.append(weakref.ref(hidden))
        if len(self.seen) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.26 GiB")
        return hidden


def test_what_a_step_held_when_memory_ran_out_is_free_once_the_error_is_told() -> None:
    # https://github.com/pytorch/pytorch/issues/27600: the traceback holds the frames, which hold the tensors, so that a
    # smaller batch finds no room either.
    layer = Layer(4, 4)
    layer.seen = []
    step = train_step(layer, lambda model, batch: model(model(batch)).sum(), micro_batch_size=2)

    def attempt() -> TrialStatus:
        try:
            step(torch.randn(2, 4))
        except BaseException as error:  # noqa: BLE001 - as a trial does
            assert describe(error).traceback
            return classify(error)
        return TrialStatus.OK

    assert attempt() is TrialStatus.OOM
    gc.collect()
    assert [reference() for reference in layer.seen] == [None, None]


def test_a_pass_without_gradients_under_autocast_leaves_the_next_its_own() -> None:
    # https://github.com/pytorch/pytorch/issues/112583: weights that autocast had cast without gradients were used again
    # with them, and were not trained.
    def twice(model: nn.Module, batch: Tensor) -> Tensor:
        with torch.no_grad():
            target = model(batch).square()
        return (model(batch) - target).square().mean()

    torch.manual_seed(0)
    plain = nn.Linear(4, 4)
    cast = copy.deepcopy(plain)
    batch, before = torch.randn(8, 4), weights(plain)
    train_step(plain, twice, micro_batch_size=8)(batch)
    train_step(cast, twice, micro_batch_size=8, amp_dtype="bf16")(batch)
    assert (weights(cast) - before).norm() > 0.5 * (weights(plain) - before).norm()
