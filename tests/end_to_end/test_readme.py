"""The README's Python runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from autotune.config import TrainConfig

README = Path(__file__).parents[2] / "README.md"


def test_the_training_loop_of_the_readme_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    study = tmp_path / "studies" / "quickstart"
    study.mkdir(parents=True)
    config = TrainConfig(micro_batch_size=4, grad_accum_steps=2, amp_dtype="bf16", memory_format="channels_last")
    (study / "best.yaml").write_text(yaml.safe_dump({"config": config.to_dict()}))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    names = {
        "model": model,
        "dataset": [(torch.randn(3, 8, 8), number % 2) for number in range(20)],
        "loss_fn": lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
    }
    exec(compile(code, str(README), "exec"), names)
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
