"""The README's Python runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_emitted import DOCUMENT

from autotune.config import TrainConfig
from autotune.export import export, read_source
from autotune.export.write import write

README = Path(__file__).parents[2] / "README.md"
SNIPPETS = dict(
    zip(
        ("plain PyTorch", "timm", "transformers", "lightning"),
        re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL),
        strict=True,
    )
)


@pytest.mark.slow
@pytest.mark.parametrize("name", SNIPPETS)
def test_a_snippet_of_the_readme_trains(name: str, tmp_path: Path) -> None:
    if name in ("transformers", "lightning"):
        pytest.importorskip(name)
    study = tmp_path / "studies" / "quickstart"
    study.mkdir(parents=True)
    config = TrainConfig(micro_batch_size=8, grad_accum_steps=2, amp_dtype="bf16", memory_format="channels_last")
    (study / "best.yaml").write_text(yaml.safe_dump(DOCUMENT | {"config": config.to_dict()}))
    if name in ("transformers", "lightning"):
        source = read_source(study)
        write(export(source, name), source, tmp_path)
    (tmp_path / "snippet.py").write_text(SNIPPETS[name])
    done = subprocess.run(
        [sys.executable, "snippet.py"], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
