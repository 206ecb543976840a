"""A step's own state: saved and restored in the middle of a window, training goes on bit for bit."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from toy_training import CPU, Batch, cut, draw, mean_loss, small_model

from autotune.config import TrainConfig
from autotune.training import TrainStep


def counted_loss(model: torch.nn.Module, batch: Batch) -> Any:
    count = int(batch[1].sum()) + 1
    return mean_loss(model, batch) * count, count


class Training:
    def __init__(self, **config: Any) -> None:
        self.model = small_model().float()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.step = TrainStep(
            self.model, self.optimizer, counted_loss, TrainConfig(**config), device=CPU, clip_grad_norm=1.0
        )

    def train(self, batches: list[Batch]) -> list[float]:
        return [self.step((inputs.float(), targets)).loss.item() for inputs, targets in batches]

    def saved(self) -> io.BytesIO:
        file = io.BytesIO()
        torch.save({name: getattr(self, name).state_dict() for name in ("model", "optimizer", "step")}, file)
        file.seek(0)
        return file

    def restore(self, file: io.BytesIO) -> None:
        for name, state in torch.load(file, weights_only=True).items():
            getattr(self, name).load_state_dict(state)

    def weights(self) -> list[torch.Tensor]:
        return [parameter.detach().clone() for parameter in self.model.parameters()]


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("amp_dtype", ["none", "fp16"])
def test_training_goes_on_bit_for_bit(at: int, amp_dtype: str) -> None:
    batches = cut(draw(36), [6] * 6)
    whole, first, second = (Training(grad_accum_steps=3, amp_dtype=amp_dtype) for _ in range(3))
    losses = whole.train(batches)
    first.train(batches[:at])
    second.train(batches[:2])  # it has a past of its own, which the checkpoint replaces
    second.restore(first.saved())
    assert second.train(batches[at:]) == losses[at:]
    assert all(map(torch.equal, second.weights(), whole.weights()))
    assert second.step.loss_scale == whole.step.loss_scale


def test_a_short_window_is_finished_after_a_restart() -> None:
    whole, again = Training(grad_accum_steps=3), Training(grad_accum_steps=3)
    whole.train(cut(draw(12), [6, 6]))
    again.restore(whole.saved())
    ours, theirs = again.step.finish(), whole.step.finish()
    assert ours is not None
    assert theirs is not None
    assert ours.loss.item() == theirs.loss.item()
    assert all(map(torch.equal, again.weights(), whole.weights()))


def test_a_checkpoint_of_another_precision_is_refused() -> None:
    state = Training(amp_dtype="fp16").step.state_dict()
    with pytest.raises(ValueError, match="another amp_dtype than none"):
        Training().step.load_state_dict(state)


def test_a_checkpoint_of_another_model_is_refused() -> None:
    one = Training(grad_accum_steps=2)
    one.train(cut(draw(6), [6]))
    state = one.step.state_dict()
    state["gradients"] = state["gradients"][:1]
    with pytest.raises(ValueError, match="1 gradients, the optimizer 4 parameters"):
        Training(grad_accum_steps=2).step.load_state_dict(state)
