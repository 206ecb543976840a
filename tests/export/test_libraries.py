"""The real libraries take what was exported, and train with it: all in this process, which imports them once."""

from __future__ import annotations

import importlib
import io
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from samples import AFFORDABLE, ON_CPU, PLAIN, SPEC, source
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from autotune.bench import exported
from autotune.bench.exported import HARNESSED, harness_run
from autotune.config import TrainConfig
from autotune.export import export

pytestmark = pytest.mark.slow


def defined(config: TrainConfig, target: str, **options: Any) -> dict[str, Any]:
    """The names that the exported Python defines."""
    names: dict[str, Any] = {}
    for name, text in export(source(config, **options), target).files.items():
        if name.endswith(".py"):
            exec(compile(text, name, "exec"), names)
    return names


def points() -> TensorDataset:
    torch.manual_seed(0)
    return TensorDataset(torch.randn(64, 4), torch.randint(0, 2, (64,)))


class Rows(Dataset[dict[str, Tensor]]):
    """As Hugging Face's Trainer takes them."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        inputs, targets = points()[position]
        return {"inputs": inputs, "labels": targets}


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": nn.functional.cross_entropy(self.layer(inputs), labels)}


@pytest.mark.parametrize("config", [PLAIN, AFFORDABLE, ON_CPU], ids=["plain", "affordable", "every setting"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_transformers_makes_its_arguments_of_them(config: TrainConfig, optimizer: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    training = {"optimizer": {"name": optimizer, "lr": 0.5}}
    make = defined(config, "transformers", training=training)["training_arguments"]
    arguments = make(str(tmp_path), report_to=[], weight_decay=0.125)
    assert arguments.train_batch_size == config.micro_batch_size
    assert arguments.gradient_accumulation_steps == config.grad_accum_steps
    assert arguments.bf16 == (config.amp_dtype == "bf16")
    assert arguments.torch_compile == (config.compile != "none")
    assert arguments.activation_checkpointing == config.activation_checkpointing
    assert arguments.dataloader_num_workers == config.num_workers
    assert arguments.device.type == "cpu"
    assert arguments.weight_decay == 0.125
    if optimizer == "adamw":
        assert arguments.optim == ("adamw_torch_fused" if config.fused_optimizer else "adamw_torch")
        assert arguments.learning_rate == 5e-5, "the Trainer's own"


def test_transformers_trains_two_steps(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    make = defined(AFFORDABLE, "transformers")["training_arguments"]
    arguments = make(str(tmp_path), max_steps=2, report_to=[], save_strategy="no", disable_tqdm=True)
    trainer = transformers.Trainer(model=Classifier(), args=arguments, train_dataset=Rows())
    trainer.train()
    assert trainer.state.global_step == 2


@pytest.mark.parametrize("config", [PLAIN, ON_CPU], ids=["plain", "every setting"])
def test_accelerate_loads_its_file(config: TrainConfig, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    from accelerate.commands.config.config_args import load_config_from_file

    file = tmp_path / "accelerate_config.yaml"
    file.write_text(export(source(config), "accelerate").files[file.name])
    read = load_config_from_file(str(file))
    assert read.mixed_precision == ("bf16" if config is ON_CPU else "no")
    assert read.use_cpu
    assert read.dynamo_config.get("dynamo_backend") == ("INDUCTOR" if config is ON_CPU else None)


@pytest.fixture
def fresh_accelerate() -> Any:
    pytest.importorskip("accelerate")
    from accelerate.state import AcceleratorState, GradientState, PartialState

    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.mark.usefixtures("fresh_accelerate")
def test_accelerate_takes_every_setting() -> None:
    accelerator = defined(ON_CPU, "accelerate")["make_accelerator"]()
    assert accelerator.mixed_precision == "bf16"
    assert accelerator.state.dynamo_plugin.mode == "default"


@pytest.mark.usefixtures("fresh_accelerate")
def test_accelerate_trains() -> None:
    names = defined(AFFORDABLE, "accelerate")
    accelerator, steps = names["make_accelerator"](), 0
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(points(), **names["DATALOADER"])
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for inputs, targets in loader:
        with accelerator.accumulate(model):
            accelerator.backward(nn.functional.cross_entropy(model(inputs), targets))
            steps += accelerator.sync_gradients
            optimizer.step()
            optimizer.zero_grad()
    assert steps == 64 // AFFORDABLE.effective_batch_size


def test_lightning_trains_two_steps(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    names = defined(AFFORDABLE, "lightning")

    class Module(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def training_step(self, batch: Any, _number: int) -> Tensor:
            return nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(**names["TRAINER"], **quiet, max_steps=2, default_root_dir=tmp_path)
    trainer.fit(Module(), DataLoader(points(), **names["DATALOADER"]))
    assert trainer.global_step == 2
    assert trainer.precision == "bf16-mixed"
    assert (trainer.accumulate_grad_batches, trainer.gradient_clip_val) == (2, 1.0)


def test_fabric_trains_two_steps() -> None:
    lightning = pytest.importorskip("lightning")
    names = defined(AFFORDABLE, "lightning")
    fabric = lightning.Fabric(**names["FABRIC"])
    model = nn.Linear(4, 2)
    model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    before = model.weight.detach().clone()
    loader = fabric.setup_dataloaders(DataLoader(points(), **names["DATALOADER"]))
    for number, (inputs, targets) in enumerate(loader, start=1):
        last = number % names["GRAD_ACCUM_STEPS"] == 0
        with fabric.no_backward_sync(model, enabled=not last):
            fabric.backward(nn.functional.cross_entropy(model(inputs), targets))
        if last:
            optimizer.step()
            optimizer.zero_grad()
    assert not torch.equal(before, model.weight)


@pytest.mark.usefixtures("fresh_accelerate")
@pytest.mark.parametrize("target", HARNESSED)
def test_a_workload_trains_through_what_was_exported(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first in a process of its own, as for a user; the others in this one, which has imported the libraries."""
    pytest.importorskip(target)
    entry = importlib.import_module("autotune.trial.__main__")

    def run_here(command: list[str], _name: str, task: str, _folder: None, _deadline_s: float) -> float:
        assert command[1:4] == ["-P", "-m", "autotune.trial"]
        monkeypatch.setattr(sys, "stdin", io.StringIO(task))
        capsys.readouterr()
        entry.main(command[4:])
        return exported._read(target, 0, capsys.readouterr().out, "")

    if target != HARNESSED[0]:
        monkeypatch.setattr(exported, "_run", run_here)
    files = []
    for name, text in export(source(AFFORDABLE), target).files.items():
        files.append(tmp_path / name)
        files[-1].write_text(text)
    assert harness_run(target, files, SPEC, tmp_path, AFFORDABLE)(0, 0.5, 120.0) > 0
