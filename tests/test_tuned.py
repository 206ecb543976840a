"""`autotune.load` in a training script: the settings in effect, warnings where they were measured elsewhere."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from test_emitted import DOCUMENT
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import autotune
from autotune.config import TrainConfig
from autotune.host import cpu_name
from autotune.training import SettingHasNoEffect
from autotune.tuned import ChangedBatchSize

HERE = {"device": cpu_name(), "device_kind": "cpu", "torch": str(torch.__version__)}


@pytest.fixture(autouse=True)
def threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def emitted(folder: Path, environment: dict[str, str] | None = None, **config: Any) -> Path:
    path = folder / "best.yaml"
    settings = {"config": TrainConfig(**config).to_dict(), "environment": HERE | (environment or {})}
    path.write_text(yaml.safe_dump(DOCUMENT | settings))
    return path


def images(samples: int = 64) -> TensorDataset:
    return TensorDataset(torch.randn(samples, 3, 8, 8), torch.randint(0, 4, (samples,)))


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 4))


def loss_fn(model: nn.Module, batch: Any) -> torch.Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1])


def test_importing_brings_neither_torch_nor_optuna() -> None:
    code = "import sys, autotune; autotune.load; print(sorted({'torch', 'optuna', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_training_loop_trains_as_the_study_measured(tmp_path: Path) -> None:
    tuned = autotune.load(
        emitted(tmp_path, micro_batch_size=8, grad_accum_steps=2, memory_format="channels_last", num_threads=1)
    )
    model = tuned.apply(network())
    optimizer = tuned.optimizer(torch.optim.SGD, model.parameters(), lr=0.1)
    step = tuned.train_step(model, optimizer, loss_fn)
    loader = tuned.dataloader(images(), seed=0)
    outputs = [step(batch) for batch in loader]
    assert [out.optimizer_stepped for out in outputs] == [False, True] * 4
    assert loader.batch_size == 8
    assert torch.get_num_threads() == 1
    assert next(model.parameters()).is_contiguous(memory_format=torch.channels_last)
    assert tuned.effective_batch_size == 16


def test_a_step_applies_the_settings_that_nobody_has_applied(tmp_path: Path) -> None:
    tuned = autotune.load(emitted(tmp_path, memory_format="channels_last"))
    model = network()
    tuned.train_step(model, torch.optim.SGD(model.parameters(), lr=0.1), loss_fn)
    assert next(model.parameters()).is_contiguous(memory_format=torch.channels_last)


def test_overrides_of_the_loader_win(tmp_path: Path) -> None:
    loader = autotune.load(emitted(tmp_path)).dataloader(images(), batch_size=4, drop_last=False)
    assert isinstance(loader, DataLoader)
    assert (loader.batch_size, loader.drop_last) == (4, False)


def test_fused_is_given_to_the_optimizer_and_asked_of_it(tmp_path: Path) -> None:
    tuned = autotune.load(emitted(tmp_path, fused_optimizer=True))
    model = tuned.apply(network())
    assert tuned.optimizer(torch.optim.AdamW, model.parameters(), lr=1e-3).param_groups[0]["fused"] is True
    with pytest.raises(SettingHasNoEffect, match="fused=True"):
        tuned.train_step(model, torch.optim.AdamW(model.parameters()), loss_fn)


def test_autocast_is_that_of_the_step(tmp_path: Path) -> None:
    with autotune.load(emitted(tmp_path, amp_dtype="bf16")).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_at_home_nothing_is_warned_of(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert autotune.load(emitted(tmp_path)).device.type == "cpu"


def test_a_changed_effective_batch_is_warned_of_and_stands_beside_the_speed_up(tmp_path: Path) -> None:
    path = emitted(tmp_path, micro_batch_size=64)
    with pytest.warns(ChangedBatchSize, match="changes from 32 to 64.*learning rate by 2 ") as caught:
        tuned = autotune.load(path)
    assert caught[0].filename == __file__
    for shown in (repr(tuned), tuned._repr_html_()):
        assert "effective batch size changes from 32 to 64" in shown


def test_another_torch_and_another_device_are_warned_of_where_the_user_looks(tmp_path: Path) -> None:
    path = emitted(tmp_path, {"torch": "1.13.1", "device": "NVIDIA H200", "device_kind": "cuda"})
    with pytest.warns(autotune.MeasuredElsewhere, match=r"measured on PyTorch 1\.13\.1") as caught:
        tuned = autotune.load(path)
    assert caught[0].filename == __file__
    if not torch.cuda.is_available():
        with pytest.warns(autotune.MeasuredElsewhere, match="measured on NVIDIA H200, and this is"):
            assert tuned.device.type == "cpu"


def test_it_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    tuned = autotune.load(emitted(tmp_path, micro_batch_size=64, custom=(("impl", "<b>"),)))
    page = tuned._repr_html_()
    assert "<td>micro_batch_size</td><td>32</td><td><b>64</b></td>" in page
    assert "&lt;b&gt;" in page
    assert "208 samples/s, 2.08× the baseline (1.90 to 2.30), stable" in page
    assert "micro_batch_size=64" in repr(tuned)
    assert dict(tuned.custom) == {"impl": "<b>"}


def trained(tuned: Any, *loss: Any, **options: Any) -> torch.Tensor:
    torch.manual_seed(0)
    model = network()
    step = tuned.train_step(model, torch.optim.SGD(model.parameters(), lr=0.1), *loss, **options)
    step([torch.ones(8, 3, 8, 8), torch.arange(8) % 4])
    return next(model.parameters()).detach()


def test_a_criterion_trains_as_the_loss_function_that_calls_it(tmp_path: Path) -> None:
    tuned = autotune.load(emitted(tmp_path, micro_batch_size=8))
    expected = trained(tuned, loss_fn)
    for criterion in (nn.CrossEntropyLoss(), functional.cross_entropy):
        assert torch.equal(trained(tuned, criterion=criterion), expected)


def test_a_criterion_in_the_wrong_place_or_form_is_told_so(tmp_path: Path) -> None:
    tuned = autotune.load(emitted(tmp_path, micro_batch_size=8))
    with pytest.raises(TypeError, match=r"loss_fn: CrossEntropyLoss is a criterion.+; give it as criterion="):
        trained(tuned, nn.CrossEntropyLoss())
    for options in ({}, {"loss_fn": loss_fn, "criterion": nn.CrossEntropyLoss()}):
        with pytest.raises(TypeError, match=r"either loss_fn.+ or criterion="):
            trained(tuned, **options)
    with pytest.raises(ValueError, match="criterion: reduction='sum'; give one with reduction='mean'"):
        trained(tuned, criterion=nn.CrossEntropyLoss(reduction="sum"))
    model = network()
    step = tuned.train_step(model, torch.optim.SGD(model.parameters(), lr=0.1), criterion=nn.CrossEntropyLoss())
    for batch, found in (({"x": torch.ones(2, 3, 8, 8)}, "a dict"), ([torch.ones(2)] * 3, "a list of 3")):
        with pytest.raises(TypeError, match=rf"criterion takes batches \(inputs, targets\), not {found}"):
            step(batch)
