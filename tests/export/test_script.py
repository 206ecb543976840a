"""The exported training script: what it holds, that it trains, and on the data of the trials."""

from __future__ import annotations

import itertools
import json
import math
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from samples import AFFORDABLE, ON_CPU, ON_CUDA, PLAIN, source
from support.simulation import Clock
from torch import nn
from torch.utils.data import DataLoader

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

    @staticmethod
    def on_images(drop_rate):
        return nn.Sequential(
            nn.Conv2d(3, 8, 8, stride=4), nn.ReLU(), nn.Flatten(), nn.Dropout(drop_rate), nn.Linear(8 * 7 * 7, 4)
        )

def build(samples=64):
    torch.manual_seed(0)
    return TensorDataset(torch.randn(samples, 4), torch.randint(0, 2, (samples,)))

def loss(model, batch):
    inputs, targets = batch
    counted = targets > 0
    each = nn.functional.cross_entropy(model(inputs), targets, reduction="none")
    return (each * counted).sum(), counted.sum()

def optimizer(module, lr, decay=0.0):
    return torch.optim.SGD([{"params": [each]} for each in module.parameters()], lr=lr, weight_decay=decay)

def halved(samples):
    inputs, targets = torch.utils.data.default_collate(samples)
    return inputs / 2, targets
"""
OWN_SECTIONS = {
    "model": {"factory": "own_parts:Build.model", "args": {"width": 2}},
    "data": {"factory": "own_parts:build", "args": {"samples": 48}},
    "training": {"loss": "own_parts:loss", "optimizer": {"name": "sgd", "lr": 0.1}},
    "search": {},
}
MOMENTUM, CLIP = 0.9, 2.0
FIRST_AND_WARM_UP_STEPS = 1 + 10
DTYPES = {"none": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def sgd(lr: float) -> dict[str, Any]:
    """A section `training`. To Adam it would hardly matter how large a gradient is."""
    return {"optimizer": {"name": "sgd", "lr": lr, "momentum": MOMENTUM}, "clip_grad_norm": CLIP}


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


RunHere = Callable[..., dict[str, Any]]


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[RunHere]:
    """Runs a script in this process; named arguments take the place of what it defines or imports."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for such small tensors, several wait for one another

    def run_here(text: str, *arguments: str, **fakes: Any) -> dict[str, Any]:
        names: dict[str, Any] = {"__name__": "train"}
        exec(compile(text, "train.py", "exec"), names)
        names.update(fakes)
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        names["main"]()
        said: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return said

    yield run_here
    torch.set_num_threads(threads)


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


def test_it_builds_the_optimizer_and_the_batches_with_the_users_own_functions(
    run_here: RunHere, tmp_path: Path
) -> None:
    (tmp_path / "own_parts.py").write_text(OWN)
    factory = {"factory": "own_parts:optimizer", "lr": 0.1}
    data = OWN_SECTIONS["data"]
    own = {
        "data": data | {"collate": "own_parts:halved"},
        "training": OWN_SECTIONS["training"] | {"optimizer": factory},
    }
    text = script(PLAIN, folder=tmp_path, **OWN_SECTIONS | own)
    assert "from own_parts import optimizer as optimizer_factory" in text
    assert "optimizer = optimizer_factory(model, lr=0.1)" in text
    assert "collate_fn=collate_function" in text
    ours, plain = (
        run_here(each, "--steps", "9", "--seed", "2")["loss"]
        for each in (text, script(PLAIN, folder=tmp_path, **OWN_SECTIONS))
    )
    assert ours != pytest.approx(plain, rel=1e-3), "its inputs are halved"
    parts = sys.modules["own_parts"]
    expected = plain_loss(
        PLAIN,
        FIRST_AND_WARM_UP_STEPS + 9,
        seed=2,
        dataset=lambda: parts.build(samples=48),
        model=lambda: parts.Build.model(width=2),
        lr=0.1,
        loss=lambda model, batch: parts.loss(model, [batch[0] / 2, batch[1]]),
    )
    assert ours == pytest.approx(expected, rel=1e-3)


def test_a_fused_factory_is_called_as_the_trials_did() -> None:
    sections = {"training": {"optimizer": "own_parts:optimizer"}, "search": {}}
    assert "optimizer = optimizer_factory(model, fused=True)" in script(PLAIN.replace(fused_optimizer=True), **sections)


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


def summed_cross_entropy(model: nn.Module, batch: Any) -> tuple[torch.Tensor, int]:
    images, targets = batch
    return nn.functional.cross_entropy(model(images), targets, reduction="sum"), len(targets)


def plain_loss(
    config: TrainConfig,
    steps: int,
    *,
    seed: int,
    dataset: Callable[[], Any],
    model: Callable[[], nn.Module],
    lr: float,
    momentum: float = 0.0,
    clip: float = math.inf,
    loss: Callable[[nn.Module, Any], tuple[torch.Tensor, Any]] = summed_cross_entropy,
) -> float:
    """The loss of the last of so many optimizer steps, each on the mean over all samples of its micro-batches."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    data = dataset()
    trained = model().train().to(memory_format=LAYOUTS[config.memory_format])
    order = torch.Generator().manual_seed(seed)
    workers: dict[str, Any] = {"num_workers": config.num_workers, "persistent_workers": config.num_workers > 0}
    loader = DataLoader(data, config.micro_batch_size, shuffle=True, drop_last=True, generator=order, **workers)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    updates = torch.optim.SGD(trained.parameters(), lr, momentum)
    autocast = torch.autocast("cpu", dtype=DTYPES[config.amp_dtype], enabled=config.amp_dtype != "none")
    scaler = torch.amp.GradScaler("cpu", enabled=config.amp_dtype == "fp16")
    mean = torch.tensor(math.nan)
    for _ in range(steps):
        parts = [autocast(loss)(trained, next(batches)) for _ in range(config.grad_accum_steps)]
        mean = sum(total for total, _ in parts) / sum(count for _, count in parts)
        updates.zero_grad()
        scaler.scale(mean).backward()
        scaler.unscale_(updates)
        nn.utils.clip_grad_norm_(trained.parameters(), clip)
        scaler.step(updates)
        scaler.update()
    return mean.item()


def generated() -> PatternImages:
    """The data of `samples.SPEC`."""
    return PatternImages(Patterns.generate(samples=64, classes=4, size=32, seed=0))


@pytest.mark.parametrize(
    "config", [PLAIN, AFFORDABLE, AFFORDABLE.replace(amp_dtype="fp16")], ids=["plain", "bf16", "fp16"]
)
def test_it_trains_as_a_plain_loop_does(run_here: RunHere, tmp_path: Path, config: TrainConfig) -> None:
    """To the same loss, after so many steps that another order or gradients of another size would lead elsewhere."""
    (tmp_path / "own_parts.py").write_text(OWN)
    model = {"factory": "own_parts:Build.on_images", "args": {"drop_rate": 0.0}}
    said = run_here(script(config, folder=tmp_path, model=model, training=sgd(0.02)), "--steps", "9", "--seed", "3")
    loss = plain_loss(
        config,
        FIRST_AND_WARM_UP_STEPS + 9,
        seed=3,
        dataset=generated,
        model=partial(sys.modules["own_parts"].Build.on_images, dict(config.custom).get("rate", 0.0)),
        lr=0.02,
        momentum=MOMENTUM,
        clip=CLIP,
    )
    assert said["steps"] == 9
    assert said["loss"] == pytest.approx(loss, rel=1e-4)


def plain_loss_of_timms(config: TrainConfig, steps: int, dataset: Callable[[], Any] = generated) -> float:
    import timm

    model = partial(timm.create_model, "test_resnet", num_classes=4)
    return plain_loss(config, steps, seed=0, dataset=dataset, model=model, lr=0.002, momentum=MOMENTUM, clip=CLIP)


@pytest.mark.slow
def test_it_trains_without_autotune_and_with_every_setting_of_a_cpu(tmp_path: Path) -> None:
    """In a process of its own. Compiled code rounds differently, and draws other numbers for dropout: there is none."""
    config = ON_CPU.replace(custom=(("rate", 0.0),))
    said = run(script(config, model={"timm": "test_resnet"}, training=sgd(0.002)), tmp_path, "--steps", "9")
    first, last = (plain_loss_of_timms(config, steps) for steps in (1, FIRST_AND_WARM_UP_STEPS + 9))
    assert last < 0.8 * first
    assert said["loss"] == pytest.approx(last, rel=0.03)


@pytest.mark.slow
def test_it_trains_on_the_jpeg_files_of_the_trials(
    run_here: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from timm.data import create_transform
    from torchvision.datasets import ImageFolder

    from autotune.spec import parse_spec
    from autotune.workload.data import prepare_data

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sections: dict[str, Any] = {"data": JPEG, "model": {"timm": "test_resnet"}, "training": sgd(0.002)}
    made_from = source(PLAIN, **sections)
    assert made_from.spec is not None
    root = prepare_data(parse_spec(made_from.spec.model_dump(mode="json"), tmp_path).data, tmp_path).index.root  # type: ignore[attr-defined]
    loss = plain_loss_of_timms(
        PLAIN, FIRST_AND_WARM_UP_STEPS + 1, lambda: ImageFolder(str(root), create_transform(32, is_training=True))
    )
    known, unknown = script(PLAIN, data_folder=str(root), **sections), script(PLAIN, **sections)
    assert 'parser.add_argument("--data", metavar="DIR", required=True)' in unknown
    for text, arguments in ((known, []), (unknown, ["--data", str(root)])):
        assert run_here(text, "--steps", "1", *arguments)["loss"] == pytest.approx(loss, rel=1e-3)


@pytest.mark.parametrize("grad_accum_steps", [1, 3])
@pytest.mark.parametrize("amp_dtype", ["none", "fp16"])
def test_it_trains_on_parts_of_the_users_own(
    run_here: RunHere, tmp_path: Path, grad_accum_steps: int, amp_dtype: Any
) -> None:
    (tmp_path / "own_parts.py").write_text(OWN)
    config = PLAIN.replace(grad_accum_steps=grad_accum_steps, amp_dtype=amp_dtype, memory_format="channels_last")
    said = run_here(script(config, folder=tmp_path, **OWN_SECTIONS), "--steps", "9", "--seed", "2")
    own = sys.modules["own_parts"]
    loss = plain_loss(
        config,
        FIRST_AND_WARM_UP_STEPS + 9,
        seed=2,
        dataset=lambda: own.build(samples=48),
        model=lambda: own.Build.model(width=2),
        lr=0.1,
        loss=own.loss,
    )
    assert said["loss"] == pytest.approx(loss, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "before", "counted"),
    [
        pytest.param(["--steps", "2"], 1 + 10, 2, id="the first step and ten to warm up"),
        pytest.param(["--seconds", "10"], 1 + 16, 24, id="the first step and 4 s to warm up"),
        pytest.param(["--seconds", "0"], 1 + 1, 1, id="a step at least"),
    ],
)
@pytest.mark.parametrize("grad_accum_steps", [1, 3])
def test_it_trains_for_as_long_as_it_is_told(
    run_here: RunHere, tmp_path: Path, arguments: list[str], before: int, counted: int, grad_accum_steps: int
) -> None:
    """On a clock that each step moves by a quarter of a second, with the number of the step for its loss."""
    (tmp_path / "own_parts.py").write_text(OWN)
    clock = Clock()
    number = itertools.count(1)

    def train_step(*_: Any) -> torch.Tensor:
        clock.advance(0.25)
        return torch.tensor(next(number))

    text = script(PLAIN.replace(grad_accum_steps=grad_accum_steps), folder=tmp_path, **OWN_SECTIONS)
    said = run_here(text, *arguments, train_step=train_step, time=SimpleNamespace(perf_counter=clock))
    assert said == {
        "samples_per_s": 8 * grad_accum_steps / 0.25,
        "measured": f"{counted} steps after the warm-up",
        "steps": counted,
        "loss": before + counted,
    }


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


IMAGES = {"image_folder": {"path": "/a %(folder)s {of} 100 %", "image_size": 32}}


@pytest.mark.parametrize("data", [{"synthetic": {"image_size": 32}}, JPEG, IMAGES], ids=["memory", "jpeg", "folder"])
@pytest.mark.parametrize("config", [PLAIN, AFFORDABLE], ids=["plain", "affordable"])
def test_it_says_what_its_options_are(
    config: TrainConfig, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    defined: dict[str, Any] = {"__name__": "exported"}
    exec(compile(script(config, data=data), "train.py", "exec"), defined)
    monkeypatch.setattr(sys, "argv", ["train.py", "-h"])
    with pytest.raises(SystemExit) as ended:
        defined["parse_options"]()
    assert ended.value.code == 0
    assert "the first 40 % of it warm up" in " ".join(capsys.readouterr().out.split())
