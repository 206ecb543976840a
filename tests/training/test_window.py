"""Weights that are tensors: the same arithmetic, with no look at their values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from autotune.training.window import MicroLoss, Window


def test_tensor_weights_are_corrected_for_without_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("the device was waited for")

    losses = [
        (torch.tensor(6.0), torch.tensor(2)),
        (torch.tensor(1.0), torch.tensor(1)),
        (torch.tensor(0.0), torch.tensor(0)),
    ]
    micro = [MicroLoss(value=value, scale=1.0, weight=weight) for value, weight in losses]
    for name in ("item", "__float__", "__bool__", "__int__"):
        monkeypatch.setattr(Tensor, name, refuse)
    window = Window.opened_by(micro[0], 3)
    shares = [window.add(loss, 1) for loss in micro]
    correction = window.correction()
    assert correction is not None
    total = sum(shares) * correction
    mean = window.mean_loss(correction)
    monkeypatch.undo()
    assert float(total) == pytest.approx(7 / 3)
    assert float(mean) == pytest.approx(7 / 3)


def test_an_ordinary_window_needs_no_correction() -> None:
    loss = MicroLoss(value=torch.tensor(1.0), scale=4.0, weight=4.0)
    window = Window.opened_by(loss, 2)
    window.add(loss, 4)
    assert window.correction() is not None
    window.add(loss, 4)
    assert window.correction() is None
    assert window.samples == 8


def test_an_empty_window_has_no_loss() -> None:
    window = Window.opened_by(MicroLoss(value=torch.tensor(1.0), scale=1.0, weight=1.0), 2)
    with pytest.raises(ValueError, match="no micro-batch"):
        window.mean_loss(None)
