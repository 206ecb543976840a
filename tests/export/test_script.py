"""The exported training script: what it holds, that it trains, and on the data of the trials."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from samples import AFFORDABLE, ON_CPU, ON_CUDA, PLAIN, source

from autotune.config import TrainConfig
from autotune.errors import SpecError
from autotune.export import export
from autotune.export.script.generated import generated_images
from autotune.export.script.model import OPTIMIZERS
from autotune.workload.data.synthetic import PatternImages
from autotune.workload.patterns import Patterns

JPEG = {"synthetic": {"image_size": 32, "storage": "jpeg", "samples": 32, "classes": 4}}
OWN = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

class Build:
    @staticmethod
    def model(width=4):
        return nn.Linear(4, width)

def build(samples=64):
    torch.manual_seed(0)
    return TensorDataset(torch.randn(samples, 4), torch.randint(0, 2, (samples,)))

def loss(model, batch):
    inputs, targets = batch
    counted = targets > 0
    each = nn.functional.cross_entropy(model(inputs), targets, reduction="none")
    return (each * counted).sum(), counted.sum()
"""
OWN_SECTIONS = {
    "model": {"factory": "own_parts:Build.model", "args": {"width": 2}},
    "data": {"factory": "own_parts:build", "args": {"samples": 48}},
    "training": {"loss": "own_parts:loss", "optimizer": {"name": "sgd", "lr": 0.1}},
    "search": {},
}


def script(config: TrainConfig, **options: Any) -> str:
    return export(source(config, **options), "torch").files["train.py"]


def code(text: str) -> str:
    """Without the docstring."""
    return text.split('"""', 2)[2]


def run(text: str, folder: Path, *arguments: str, timeout_s: float = 300.0) -> dict[str, Any]:
    """Where autotune cannot be imported."""
    path = folder / "train.py"
    path.write_text(text)
    (folder / "autotune.py").write_text("raise ImportError('the script has to do without')")
    command = [sys.executable, str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def test_a_plain_script_holds_no_word_of_what_it_does_not_do() -> None:
    text = code(script(PLAIN, training={}))
    words = "autocast scaler channels_last GRAD_ACCUM compile pin_memory DEVICE synchronize persistent fused "
    for word in (words + "clip_grad autotune sys. set_num_threads precision checkpointing non_blocking").split():
        assert word not in text, word


def test_a_script_with_every_setting_holds_each_of_them() -> None:
    text = code(script(ON_CUDA, kind="cuda"))
    for words in (
        "MICRO_BATCH_SIZE = 8",
        "GRAD_ACCUM_STEPS = 2",
        "torch.set_num_threads(1)",
        'torch.backends.cudnn.conv.fp32_precision = "tf32"',
        "scaler = torch.amp.GradScaler(DEVICE.type)",
        "scaler.scale(share).backward()",
        "scaler.unscale_(optimizer)",
        "with torch.autocast(DEVICE.type, dtype=torch.float16):",
        "share = loss / GRAD_ACCUM_STEPS",
        "images.to(DEVICE, non_blocking=True)",
        "images.contiguous(memory_format=torch.channels_last)",
        "model.to(memory_format=torch.channels_last)",
        'model.compile(mode="max-autotune")',
        "model.set_grad_checkpointing()",
        "fused=True",
        "drop_rate=0.25",
        "pin_memory=True",
        "persistent_workers=True",
        "prefetch_factor=4",
        "torch.cuda.synchronize()",
    ):
        assert words in text, words


def test_gradients_are_cleared_when_the_batch_is_there() -> None:
    for config in (PLAIN, AFFORDABLE):
        text = script(config)
        assert text.index("next(batches)") < text.index("zero_grad") < text.index("cross_entropy(model")


def test_precision_is_written_as_the_measured_torch_has_it() -> None:
    text = code(script(ON_CUDA, kind="cuda", torch="2.6.0"))
    assert "allow_tf32 = True" in text
    assert "fp32_precision" not in text


def test_its_optimizers_are_torchs() -> None:
    found = {name for name, item in vars(torch.optim).items() if isinstance(item, type)}
    assert set(OPTIMIZERS) <= found
    assert found - set(OPTIMIZERS) == {"Optimizer", "LBFGS"}


def test_a_data_set_that_only_autotune_can_open_is_refused() -> None:
    with pytest.raises(SpecError, match="given it as an object"):
        script(PLAIN, data={"factory": "autotune.workload.pickled:load"}, search={})


def test_parts_of_the_same_name_do_not_clash() -> None:
    sections = {"model": {"factory": "model:build"}, "data": {"factory": "data:build"}, "search": {}}
    text = script(PLAIN, folder=Path("/mine"), **sections)
    assert "from model import build as model_factory" in text
    assert "from data import build as dataset_factory" in text
    assert 'sys.path.insert(0, "/mine")' in text


def test_its_generated_images_are_those_of_the_trials() -> None:
    names: dict[str, Any] = {}
    exec(
        "import numpy as np, torch\nfrom torch.utils.data import Dataset\n" + generated_images(),
        names,
    )
    sizes = {"samples": 30, "classes": 4, "size": 20, "seed": 3}
    theirs, ours = PatternImages(Patterns.generate(**sizes)), names["PatternImages"](**sizes)
    assert len(ours) == len(theirs)
    for position in range(len(theirs)):
        assert torch.equal(ours[position][0], theirs[position][0])
        assert ours[position][1] == theirs[position][1]


@pytest.mark.slow
@pytest.mark.parametrize("config", [PLAIN, AFFORDABLE, AFFORDABLE.replace(amp_dtype="fp16", fused_optimizer=False)])
def test_it_trains_without_autotune(tmp_path: Path, config: TrainConfig) -> None:
    said = run(script(config), tmp_path, "--steps", "2")
    assert said["steps"] == 2
    assert said["samples_per_s"] > 0
    assert said["loss"] > 0


@pytest.mark.slow
def test_it_trains_for_as_long_as_it_is_told(tmp_path: Path) -> None:
    assert run(script(PLAIN), tmp_path, "--seconds", "0.5", "--seed", "1")["steps"] >= 1


@pytest.mark.slow
def test_it_trains_with_every_setting_of_a_cpu(tmp_path: Path) -> None:
    text = script(ON_CPU.replace(fused_optimizer=False), data={"synthetic": {"image_size": 32, "samples": 64}})
    assert run(text, tmp_path, "--steps", "1")["steps"] == 1


@pytest.mark.slow
def test_it_trains_on_the_jpeg_files_of_the_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from autotune.spec import parse_spec
    from autotune.workload.data import prepare_data

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made_from = source(PLAIN, data=JPEG)
    assert made_from.spec is not None
    root = prepare_data(parse_spec(made_from.spec.model_dump(mode="json"), tmp_path).data, tmp_path).index.root  # type: ignore[attr-defined]
    assert run(script(PLAIN, data=JPEG, data_folder=str(root)), tmp_path, "--steps", "1")["steps"] == 1
    unknown = script(PLAIN, data=JPEG)
    assert 'parser.add_argument("--data", metavar="DIR", required=True)' in unknown
    assert run(unknown, tmp_path, "--steps", "1", "--data", str(root))["steps"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("grad_accum_steps", [1, 3])
@pytest.mark.parametrize("amp_dtype", ["none", "fp16"])
def test_it_trains_on_parts_of_the_users_own(tmp_path: Path, grad_accum_steps: int, amp_dtype: Any) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "own_parts.py").write_text(OWN)
    config = PLAIN.replace(
        grad_accum_steps=grad_accum_steps, amp_dtype=amp_dtype, memory_format="channels_last", num_workers=1
    )
    text = script(config, folder=tmp_path / "parts", **OWN_SECTIONS)
    assert 0 < run(text, tmp_path, "--steps", "2")["loss"] < 5


@pytest.mark.slow
def test_a_window_of_losses_that_weigh_differently_is_their_common_mean(tmp_path: Path) -> None:
    """Against one batch of all samples: the same gradient, and so the same weights after a step of plain SGD."""
    names: dict[str, Any] = {}
    (tmp_path / "own_parts.py").write_text(OWN)
    text = script(PLAIN.replace(micro_batch_size=4, grad_accum_steps=3), folder=tmp_path, **OWN_SECTIONS)
    exec(compile(text, "train.py", "exec"), names)
    own = sys.modules["own_parts"]
    batches = [(torch.randn(4, 4), torch.tensor(targets)) for targets in ([1, 1, 1, 1], [0, 0, 0, 1], [0, 1, 0, 1])]
    model, whole = names["build_model"](), names["build_model"]()
    whole.load_state_dict(model.state_dict())
    before = torch.optim.SGD(whole.parameters(), lr=0.1)
    loss, count = own.loss(whole, tuple(map(torch.cat, zip(*batches, strict=True))))
    (loss / count).backward()
    before.step()
    said = names["train_step"](model, torch.optim.SGD(model.parameters(), lr=0.1), iter(batches))
    assert said.item() == pytest.approx((loss / count).item())
    for ours, theirs in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
