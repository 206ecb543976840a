"""Python processes that autotune starts run no file of the folder that the user happens to be in."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from support import worlds

import autotune
from autotune.bench import exported
from autotune.execution import LocalBackend
from autotune.interpreter import ROOT, environment, spawning, trial_command

_PACKAGE = Path(autotune.__file__).parent
_STARTS_PYTHON = re.compile(r"sys\.executable|get_context\(|multiprocessing\.(Pool|Process)\b|ProcessPoolExecutor")
_STRAY = ("psutil", "torch", "yaml", "timm", "numpy", "json", "random", "pickle", "socket", "autotune")
"""Modules of the standard library, of installed packages, and autotune itself."""
_A_THREAD = "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: full of files that carry the names of modules, and note that they ran."""
    folder = tmp_path / "here"
    folder.mkdir()
    for module in _STRAY:
        (folder / f"{module}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write('{module} ')")
    monkeypatch.chdir(folder)
    paths = ["", ".", *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return folder


def none_ran(here: Path) -> bool:
    return not (here.parent / "ran").exists()


def test_python_is_started_in_one_place_only() -> None:
    found = {
        str(path.relative_to(_PACKAGE)) for path in _PACKAGE.rglob("*.py") if _STARTS_PYTHON.search(path.read_text())
    }
    assert found == {"interpreter.py"}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, []),
        ("", []),
        (".", []),
        (":/lib:", ["/lib"]),
        ("./:/a:..:/b", ["/a", "/", "/b"]),
        ("src:/tmp/x", ["/tmp/src", "/tmp/x"]),
        ("/tmp", ["/tmp"]),
    ],
    ids=str,
)
def test_of_pythonpath_the_current_folder_is_left_out_unless_named(
    given: str | None, kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/tmp")
    monkeypatch.delenv("PYTHONPATH") if given is None and "PYTHONPATH" in os.environ else None
    if given is not None:
        monkeypatch.setenv("PYTHONPATH", given)
    assert environment()["PYTHONPATH"].split(os.pathsep) == [*kept, str(ROOT)]
    assert environment({"A": "1"})["A"] == "1"


def test_an_installed_autotune_needs_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.interpreter.ROOT", tmp_path / "site-packages")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert "PYTHONPATH" not in environment()


def test_the_current_folder_comes_last(here: Path) -> None:
    """Also for a checkout that is not installed, and for processes that multiprocessing starts from there."""
    code = (
        "import autotune.trial.__main__ as entry, json, sys; entry.import_from_here_last(); print(json.dumps(sys.path))"
    )
    done = subprocess.run(
        [*trial_command()[:2], "-c", code], capture_output=True, text=True, check=True, env=environment()
    )
    paths = json.loads(done.stdout)
    assert paths.index(str(here)) == len(paths) - 1
    assert none_ran(here)


@pytest.mark.slow
@pytest.mark.parametrize("starts", ["", _A_THREAD], ids=["in a fork", "in a fresh interpreter"])
def test_trials_run_nothing_of_the_current_folder_but_what_the_spec_names(here: Path, starts: str) -> None:
    (here / "mine.py").write_text(f"from torch import nn\n{starts}\ndef build(): return nn.Linear(192, 10)\n")
    spec = {
        "model": {"factory": "mine:build"},
        "data": {"synthetic": {"samples": 8, "image_size": 8}},
        "budget": "1m",
        "device": "cpu",
    }
    elsewhere = here.parent / "elsewhere"
    elsewhere.mkdir()
    backend = LocalBackend(spec, elsewhere)
    try:
        assert backend.facts(120).device.kind == "cpu"
    finally:
        backend.close()
    assert none_ran(here)


@pytest.mark.slow
def test_what_runs_an_export_runs_nothing_of_the_current_folder(here: Path) -> None:
    with pytest.raises(exported.DoesNotRun):
        exported.harness_run("accelerate", [], {}, here.parent, worlds.cpu_table().runs[0].config)(0, 0.1, 60.0)
    assert none_ran(here)


def test_processes_of_multiprocessing_run_nothing_of_the_current_folder(here: Path) -> None:
    before = dict(os.environ)
    with spawning() as context:
        process = context.Process(target=os.getpid)
        process.start()
    process.join(60)
    assert process.exitcode == 0
    assert none_ran(here)
    assert dict(os.environ) == before
