"""The real libraries take what was exported, and train two steps with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from export.sources import TUNED, source
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from autotune.config import TrainConfig
from autotune.export import export

PLAIN = TUNED.replace(num_workers=0, prefetch_factor=None, compile="none")
"""What a test can afford: no processes, no compilation."""


def loaded(config: TrainConfig, target: str, **options: Any) -> SimpleNamespace:
    """The names that the exported Python defines."""
    names: dict[str, Any] = {}
    for name, text in export(source(config, **options), target).files.items():
        if name.endswith(".py"):
            exec(compile(text, name, "exec"), names)
    return SimpleNamespace(**names)


def points() -> TensorDataset:
    torch.manual_seed(0)
    return TensorDataset(torch.randn(64, 4), torch.randint(0, 2, (64,)))


class Rows(Dataset[dict[str, torch.Tensor]]):
    """As Hugging Face's Trainer takes them."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        inputs, targets = points()[position]
        return {"inputs": inputs, "labels": targets}


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.layer(inputs)
        return {"logits": logits} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}

    def gradient_checkpointing_enable(self, **_: Any) -> None:
        """The Trainer asks for it; so small a model has nothing to gain."""


@pytest.mark.slow
@pytest.mark.parametrize("config", [PLAIN, TUNED], ids=["plain", "every setting"])
def test_transformers_makes_its_arguments_of_them(config: TrainConfig, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    arguments = loaded(config, "transformers").training_arguments(str(tmp_path), learning_rate=0.1, report_to=[])
    assert arguments.train_batch_size == 8
    assert arguments.gradient_accumulation_steps == 2
    assert arguments.bf16
    assert arguments.optim == "adamw_torch_fused"
    assert arguments.torch_compile == (config.compile != "none")
    assert arguments.dataloader_num_workers == config.num_workers
    assert arguments.learning_rate == 0.1


@pytest.mark.slow
def test_transformers_trains_two_steps(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    arguments = loaded(PLAIN, "transformers").training_arguments(str(tmp_path), max_steps=2, report_to=[])
    trainer = transformers.Trainer(model=Classifier(), args=arguments, train_dataset=Rows())
    trainer.train()
    assert trainer.state.global_step == 2


@pytest.mark.slow
def test_accelerate_loads_its_file_and_trains_two_steps(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    from accelerate.commands.config.config_args import load_config_from_file

    made = export(source(PLAIN), "accelerate")
    file = tmp_path / "accelerate_config.yaml"
    file.write_text(made.files[file.name])
    config = load_config_from_file(str(file))
    assert config.mixed_precision == "bf16"
    exported = loaded(PLAIN, "accelerate")
    accelerator, steps = exported.accelerator, 0
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(points(), **exported.DATALOADER)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for inputs, targets in loader:
        with accelerator.accumulate(model):
            accelerator.backward(nn.functional.cross_entropy(model(inputs), targets))
            steps += accelerator.sync_gradients
            optimizer.step()
            optimizer.zero_grad()
    assert steps == 64 // PLAIN.effective_batch_size


@pytest.mark.slow
def test_accelerates_file_with_every_setting_loads(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    from accelerate.commands.config.config_args import load_config_from_file

    file = tmp_path / "accelerate_config.yaml"
    file.write_text(export(source(TUNED), "accelerate").files[file.name])
    assert load_config_from_file(str(file)).dynamo_config["dynamo_backend"] == "INDUCTOR"


@pytest.mark.slow
def test_lightning_trains_two_steps(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    exported = loaded(PLAIN, "lightning")

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def training_step(self, batch: Any, _number: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(**exported.TRAINER, **quiet, max_steps=2, default_root_dir=tmp_path)
    trainer.fit(Module(), DataLoader(points(), **exported.DATALOADER))
    assert trainer.global_step == 2
    assert trainer.precision == "bf16-mixed"


@pytest.mark.slow
def test_fabric_trains_two_steps() -> None:
    lightning = pytest.importorskip("lightning")
    exported = loaded(PLAIN, "lightning")
    fabric = lightning.Fabric(**exported.FABRIC)
    model = nn.Linear(4, 2)
    model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    before = model.weight.detach().clone()
    loader = fabric.setup_dataloaders(DataLoader(points(), **exported.DATALOADER))
    for number, (inputs, targets) in enumerate(loader, start=1):
        last = number % exported.GRAD_ACCUM_STEPS == 0
        with fabric.no_backward_sync(model, enabled=not last):
            fabric.backward(nn.functional.cross_entropy(model(inputs), targets))
        if last:
            optimizer.step()
            optimizer.zero_grad()
    assert not torch.equal(before, model.weight)


DEEPSPEED_KEYS = {
    *("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping", "torch_autocast")
}
"""Of deepspeed/runtime/constants.py in DeepSpeed 0.19.8."""


def test_deepspeeds_keys_are_its_own() -> None:
    values = json.loads(export(source(), "deepspeed").files["ds_config.json"])
    assert values.keys() <= DEEPSPEED_KEYS
    assert values["torch_autocast"].keys() <= {"enabled", "dtype", "lower_precision_safe_modules"}


@pytest.mark.slow
def test_deepspeeds_own_class_takes_them() -> None:
    """Its package builds against an installed torch, so that no extra of ours brings it."""
    deepspeed = pytest.importorskip("deepspeed.runtime.config", exc_type=ImportError)
    taken = deepspeed.DeepSpeedConfig(json.loads(export(source(), "deepspeed").files["ds_config.json"]))
    assert (taken.train_micro_batch_size_per_gpu, taken.gradient_accumulation_steps) == (8, 2)
    assert taken.train_batch_size == 16
    assert taken.torch_autocast_enabled
    assert taken.torch_autocast_dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("config", [PLAIN, PLAIN.replace(amp_dtype="fp16"), TrainConfig(micro_batch_size=8)])
def test_the_script_trains_without_autotune(tmp_path: Path, config: TrainConfig) -> None:
    script = tmp_path / "train.py"
    text = export(source(config.replace(fused_optimizer=False)), "torch").files["train.py"]
    script.write_text("import sys; sys.modules['autotune'] = None\n" + text.partition('"""\n\n')[2])
    done = subprocess.run(
        [sys.executable, str(script), "--steps", "2"], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["steps"] == 2
    assert said["samples_per_s"] > 0
    assert said["loss"] > 0


@pytest.mark.slow
def test_the_script_reads_the_images_that_the_study_read(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(16):
        folder = tmp_path / "images" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (number, 0, 0)).save(folder / f"{number}.jpg")
    data = {"image_folder": {"path": str(tmp_path / "images"), "image_size": 32}}
    made = export(source(TrainConfig(micro_batch_size=8), data=data, search={}), "torch")
    script = tmp_path / "train.py"
    script.write_text(made.files["train.py"])
    command = [sys.executable, str(script), "--steps", "1"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "--data" in refused.stderr
    done = subprocess.run([*command, "--data", str(tmp_path / "images")], capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout.splitlines()[-1])["steps"] == 1, done.stderr
