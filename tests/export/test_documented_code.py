"""Every Python block of the README and of the documentation runs as it stands there."""

from __future__ import annotations

import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.facts import cpu_facts
from support.simulation import Clock, FormulaBackend
from support.snippets import Snippet, snippets
from support.storage import MemoryStudies
from test_emitted import DOCUMENT

from autotune import api
from autotune.config import TrainConfig
from autotune.export import TARGETS, export, read_source
from autotune.export.write import write
from autotune.search import look_around
from autotune.spec import load_spec

pytestmark = pytest.mark.slow

PYTHON = list(snippets("python"))
LIBRARIES = ("timm", "transformers", "lightning", "accelerate")


@pytest.fixture
def beside_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that holds a study, what was exported from it, and the files that the pages name."""
    study = tmp_path / "studies" / "quickstart"
    study.mkdir(parents=True)
    config = TrainConfig(micro_batch_size=8, grad_accum_steps=2, amp_dtype="bf16", memory_format="channels_last")
    (study / "best.yaml").write_text(yaml.safe_dump(DOCUMENT | {"config": config.to_dict()}))
    source = read_source(study)
    for name in LIBRARIES:
        write(export(source, name), source, tmp_path)
    for snippet in (*PYTHON, *snippets("yaml")):
        if snippet.file is not None:
            (tmp_path / snippet.file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / snippet.file).write_text(snippet.text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("mine", "accelerator", "training_arguments", "lightning_arguments"):
        sys.modules.pop(name, None)


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches run on a machine in numbers."""
    backend, real = FormulaBackend(Clock(), cpu_facts()), api.run_search

    def run(loaded: Any, folder: Any, *, began_s: float, **options: Any) -> Any:
        started = {"start_backend": backend, "clock": backend._clock, "open_study": MemoryStudies()}
        return real(loaded, folder, **started, **options)

    monkeypatch.setattr(api, "run_search", run)


@pytest.mark.usefixtures("simulated")
@pytest.mark.parametrize("snippet", PYTHON, ids=str)
def test_it_runs(snippet: Snippet, beside_its_files: Path) -> None:
    for library in LIBRARIES:
        if f"import {library}" in snippet.text or f"from {library}" in snippet.text:
            pytest.importorskip(library)
    if "from accelerator" in snippet.text:
        state = pytest.importorskip("accelerate.state")
        for shared in (state.AcceleratorState, state.GradientState, state.PartialState):
            shared._reset_state()
    names = runpy.run_path(_written(snippet, beside_its_files), run_name="__main__")
    if "TARGET" in names:
        files = names["TARGET"].render(read_source("studies/quickstart"))
        assert files and names["TARGET"].name not in TARGETS


def _written(snippet: Snippet, folder: Path) -> str:
    if snippet.file is None:
        (folder / "snippet.py").write_text(snippet.text)
    return snippet.file or "snippet.py"


def test_the_whole_example_trains(beside_its_files: Path) -> None:
    """Its files, by the spec that names them."""
    assert (beside_its_files / "mine.py").is_file()
    facts, space = look_around(load_spec(beside_its_files / "my.yaml"), 120.0, runs=True)
    assert facts.workload.dataset_samples == 2000
    assert space.baseline.effective_batch_size == 64
    shutil.rmtree(beside_its_files / "studies")
