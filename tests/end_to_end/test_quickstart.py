"""The main job on real input: what a search of the quick start leaves behind.

CI has run the README's first command and names its study in AUTOTUNE_QUICKSTART. Elsewhere the search runs here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from autotune.config import TrainConfig
from autotune.records import TrialRecord
from autotune.spec import load_spec
from autotune.store import StudyFolder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "specs" / "quickstart.yaml"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    if "AUTOTUNE_QUICKSTART" in os.environ:
        return StudyFolder(ROOT / os.environ["AUTOTUNE_QUICKSTART"])
    folder = tmp_path_factory.mktemp("quickstart") / "study"
    command = [sys.executable, "-m", "autotune", "search", str(SPEC), "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(folder / "best.yaml")
    return StudyFolder(folder)


@pytest.fixture(scope="module")
def best(study: StudyFolder) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(study.best.read_text())
    return document


@pytest.fixture(scope="module")
def records(study: StudyFolder) -> list[TrialRecord]:
    return study.read_trials()


def test_best_yaml_says_everything(best: dict[str, Any]) -> None:
    assert best["format"] == 1
    assert best["study"] == "quickstart"
    assert TrainConfig.from_dict(best["config"]).effective_batch_size == best["effective_batch_size"] == 32
    for figures in (best["measured"], best["baseline"]):
        assert figures["samples_per_s"] > 0
        phases = ("data_wait", "copy", "forward_backward", "optimizer")
        assert sum(figures[f"{phase}_fraction"] for phase in phases) == pytest.approx(1, abs=1e-4)
        assert any(
            limit in figures["bottleneck"] for limit in (" is the limit: ", " about even: ", " take turns", "-bound: ")
        )
        assert figures["peak_memory_bytes"] > 0
    assert {"finite_loss", "memory_headroom"} <= {check["name"] for check in best["stability"]["checks"]}
    assert {"device", "torch", "cpu", "autotune"} <= best["environment"].keys()
    assert len(best["spec_sha256"]) == 64
    assert best["created"].endswith("Z")


def test_stable_is_said_when_every_gate_holds_and_the_speed_up_is_sure(best: dict[str, Any]) -> None:
    checks = best["stability"]["checks"]
    hold = bool(checks) and all(check["passed"] or check.get("warns_only") for check in checks)
    low, _ = best["speedup"]["ci95"] or (0.0, 0.0)
    sure = best["config"] == best["baseline"]["config"] or low > 1
    assert best["stability"]["verdict"] == ("stable" if hold and sure else "unconfirmed")


def test_everything_a_trial_saw_is_kept(records: list[TrialRecord]) -> None:
    assert [record.number for record in records] == list(range(len(records)))
    for record in records:
        if record.result.status in ("ok", "pruned"):
            assert record.result.blocks
            assert record.result.steps
            assert record.result.memory
        else:
            assert record.result.failure


def test_the_budget_is_kept_and_what_it_went_into_is_told(best: dict[str, Any], records: list[TrialRecord]) -> None:
    effort = best["search"]
    assert effort["elapsed_s"] <= effort["budget_s"] == load_spec(SPEC).spec.budget
    assert effort["runs"] == sum(effort["by_status"].values()) == len(records)
    assert effort["trials"] == sum(record.optuna_trial is not None for record in records)
    assert effort["training_s"] == pytest.approx(sum(record.result.training_s for record in records), rel=0.01)
