"""Exported scripts in turns with trials: scripts in formulas beside a simulated machine."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from export.samples import AFFORDABLE, SPEC
from support.bench import Bench

from autotune.bench import exported
from autotune.bench.exported import harness_run, judge, script_run, verify_export
from autotune.errors import SpecError
from autotune.export import Export
from autotune.records import ExportVerification
from autotune.search.duel import DoesNotRun
from autotune.stats import Rounds

SCRIPT = """
import json, sys
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert set(arguments) == {"--seconds", "--seed"}, arguments
print("a line of its own")
print(json.dumps({"samples_per_s": %s}))
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished search."""
    folder = tmp_path_factory.mktemp("searched")
    bench = Bench(folder)
    bench.search(bench.backend(noise=0.002, busy=0.0))
    bench.to_disk()
    return folder


@pytest.fixture
def bench(study: Path, tmp_path: Path) -> Bench:
    """A copy of that search."""
    shutil.copytree(study, tmp_path, dirs_exist_ok=True)
    return Bench(tmp_path, on_disk=True)


Verify = Callable[..., ExportVerification]


@pytest.fixture
def verified(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Verify:
    """The verdict on an export that trains at `factor` of the promised throughput."""

    def verify(factor: float, budget_s: float = 60.0) -> ExportVerification:
        best = bench.folder.read_best()
        assert best is not None
        text = SCRIPT % (factor * best["measured"]["samples_per_s"])
        made = Export(target="torch", files={"train.py": text}, about=(), notes=())
        monkeypatch.setattr(exported, "export", lambda _source, _target: made)
        backend = bench.backend(noise=0.002, busy=0.0)
        return verify_export(bench.folder, "torch", budget_s=budget_s, start_backend=backend, clock=bench.clock)

    return verify


def test_a_script_as_fast_as_the_trials_keeps_the_promise(verified: Verify, bench: Bench) -> None:
    found = verified(1.0)
    assert (bench.folder.path / "exports" / "train.py").exists()
    assert found.holds
    assert found.ratio == pytest.approx(1.0, abs=0.01)
    assert found.rounds >= 2


def test_a_slower_one_does_not(verified: Verify) -> None:
    found = verified(0.9)
    assert not found.holds
    assert "slower than the trials" in found.reason


def test_no_time_is_no_promise(verified: Verify) -> None:
    found = verified(1.0, budget_s=8.0)
    assert not found.holds
    assert "too short" in found.reason


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("raise SystemExit('no data there')", "ended with exit code 1: no data there"),
        ("print('done')", "does not end with its samples_per_s"),
        ("import time; time.sleep(60)", "took longer than the 2 s"),
    ],
)
def test_a_script_that_does_not_run_says_why(tmp_path: Path, script: str, message: str) -> None:
    path = tmp_path / "train.py"
    path.write_text(script)
    with pytest.raises(DoesNotRun, match=message):
        script_run(path, tmp_path)(0, 1.0, 2.0)


def test_modules_beside_the_spec_are_importable(tmp_path: Path) -> None:
    (tmp_path / "mine_beside.py").write_text("SPEED = 7.0")
    path = tmp_path / "exports" / "train.py"
    path.parent.mkdir()
    path.write_text("import json, mine_beside; print(json.dumps({'samples_per_s': mine_beside.SPEED}))")
    assert script_run(path, tmp_path)(0, 1.0, 20.0) == 7.0


def test_what_the_rounds_cannot_tell_is_no_promise() -> None:
    holds, reason = judge(Rounds([[math.log(1.2), 0.0], [math.log(0.85), 0.0], [math.log(1.1), 0.0]]).compare(0, 1), 3)
    assert not holds
    assert "cannot tell" in reason


@pytest.mark.parametrize("target", ["deepspeed", "timm", "yaml", "nonsense"])
def test_what_cannot_run_here_is_refused_at_once(bench: Bench, target: str) -> None:
    with pytest.raises(SpecError, match=f"{target} cannot be run here; torch, accelerate, lightning, transformers can"):
        verify_export(bench.folder, target, budget_s=60.0)


def test_a_library_that_is_not_there_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exported.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SpecError, match="lightning is not installed; pip install"):
        verify_export(bench.folder, "lightning", budget_s=60.0)


def test_a_harness_that_fails_says_why(tmp_path: Path) -> None:
    spec = SPEC | {"model": {"factory": "no_such_module:build"}}
    run = harness_run("accelerate", [], spec, tmp_path, AFFORDABLE)
    with pytest.raises(DoesNotRun, match=r"training through the export to accelerate ended with .*no_such_module"):
        run(0, 1.0, 120.0)
