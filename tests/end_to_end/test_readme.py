"""The README's Python runs as it stands there."""

from __future__ import annotations

import importlib.util
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


RUN = """
import os, runpy, sys
for folder in sys.argv[1:]:
    os.chdir(folder)
    runpy.run_path("snippet.py", run_name="__main__")
    print(folder)
"""


@pytest.mark.slow
def test_the_snippets_of_the_readme_train(tmp_path: Path) -> None:
    """Each in a folder of its own, where it finds a study; all in one process, which imports PyTorch once."""
    folders = []
    for name in SNIPPETS:
        if name in ("transformers", "lightning") and importlib.util.find_spec(name) is None:
            continue
        folders.append(tmp_path / name)
        study = folders[-1] / "studies" / "quickstart"
        study.mkdir(parents=True)
        config = TrainConfig(micro_batch_size=8, grad_accum_steps=2, amp_dtype="bf16", memory_format="channels_last")
        (study / "best.yaml").write_text(yaml.safe_dump(DOCUMENT | {"config": config.to_dict()}))
        if name in ("transformers", "lightning"):
            source = read_source(study)
            write(export(source, name), source, folders[-1])
        (folders[-1] / "snippet.py").write_text(SNIPPETS[name])
    command = [sys.executable, "-c", RUN, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line in set(map(str, folders))] == list(map(str, folders))
