"""The main job on real input: the quick start's search from the shell, and what it emits against a plain loop.

The comparison with the plain loop, with as many pairs as it takes for a narrow interval:

    PYTHONPATH=tests python tests/end_to_end/test_quickstart.py BEST_YAML PAIRS
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from autotune.config import TrainConfig
from autotune.execution import LocalBackend
from autotune.records import TrialRequest
from autotune.spec import load_spec
from autotune.stats import throughput
from autotune.store import StudyFolder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "specs" / "quickstart.yaml"
_SECONDS = 2.0
_PAIRS = 6


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A search of the quick start in half of its budget."""
    folder = tmp_path_factory.mktemp("quickstart") / "study"
    command = [sys.executable, "-m", "autotune", "search", str(SPEC), "--budget", "75s", "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(folder / "best.yaml")
    return StudyFolder(folder)


def test_best_yaml_says_everything(study: StudyFolder) -> None:
    best = yaml.safe_load(study.best.read_text())
    assert best["format"] == 1
    assert best["study"] == "quickstart"
    assert TrainConfig.from_dict(best["config"]).effective_batch_size == best["effective_batch_size"] == 32
    for figures in (best["measured"], best["baseline"]):
        assert figures["samples_per_s"] > 0
        phases = ("data_wait", "copy", "forward_backward", "optimizer")
        assert sum(figures[f"{phase}_fraction"] for phase in phases) == pytest.approx(1, abs=1e-4)
        assert "-bound: " in figures["bottleneck"]
        assert figures["peak_memory_bytes"] > 0
    assert best["stability"]["verdict"] in ("stable", "unconfirmed")
    assert {"finite_loss", "memory_headroom"} <= {check["name"] for check in best["stability"]["checks"]}
    assert best["search"]["elapsed_s"] <= best["search"]["budget_s"] == 75
    assert {"device", "torch", "cpu", "autotune"} <= best["environment"].keys()
    assert len(best["spec_sha256"]) == 64
    assert best["created"].endswith("Z")


def test_everything_a_trial_saw_is_kept(study: StudyFolder) -> None:
    records = study.read_trials()
    assert [record.number for record in records] == list(range(len(records)))
    for record in records:
        if record.result.status in ("ok", "pruned"):
            assert record.result.blocks
            assert record.result.steps
            assert record.result.memory
        else:
            assert record.result.failure


def test_most_of_the_budget_is_spent_training(study: StudyFolder) -> None:
    """The promise is 60 % of the quick start's two minutes; this is half of them, on a machine that may be loaded."""
    effort = yaml.safe_load(study.best.read_text())["search"]
    assert effort["training_s"] > 0.4 * effort["budget_s"]


def test_a_plain_loop_is_as_fast_as_promised(study: StudyFolder) -> None:
    """A wide band: two runs of one program differ by 20 % on a shared machine."""
    ratios = compare(study.best, _PAIRS)
    assert 0.75 < math.exp(statistics.fmean(ratios)) < 1.33


def compare(best_file: Path, pairs: int) -> list[float]:
    """Logarithms of plain loop ÷ trial, one a pair, the two alternating in order."""
    config = TrainConfig.from_dict(yaml.safe_load(best_file.read_text())["config"])
    loaded = load_spec(SPEC)
    backend = LocalBackend(loaded.spec.model_dump(mode="json", exclude_none=True), loaded.folder)
    try:
        backend.facts(120)
        with _plain_loop(best_file) as plain:
            _ask(plain)
            ratios = []
            for number in range(pairs):
                turns = [lambda: _ask(plain), lambda: _trial(backend, config)]
                first, second = (turns[0](), turns[1]()) if number % 2 else (turns[1](), turns[0]())[::-1]
                ratios.append(math.log(first / second))
            plain.terminate()
    finally:
        backend.close()
    return ratios


def _plain_loop(best_file: Path) -> subprocess.Popen[str]:
    from autotune.workload.jpeg_cache import cached_jpegs

    images = cached_jpegs(samples=2048, classes=10, size=round(64 * 256 / 224), seed=0).root
    command = [
        sys.executable,
        str(Path(__file__).with_name("plain_loop.py")),
        str(best_file),
        str(images),
        str(_SECONDS),
    ]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(plain: subprocess.Popen[str]) -> float:
    assert plain.stdin is not None
    assert plain.stdout is not None
    plain.stdin.write("go\n")
    plain.stdin.flush()
    return float(plain.stdout.readline())


def _trial(backend: LocalBackend, config: TrainConfig) -> float:
    request: Any = TrialRequest(config=config, seed=0, time_limit_s=_SECONDS + 0.5, target_relative_error=0.0)
    return throughput(backend.run(request, deadline_s=60, on_event=lambda _event: None).blocks)


if __name__ == "__main__":
    logs = compare(Path(sys.argv[1]), int(sys.argv[2]))
    error = statistics.stdev(logs) / math.sqrt(len(logs))
    mean = statistics.fmean(logs)
    low, high = (math.exp(mean + sign * 1.96 * error) for sign in (-1, 1))
    sys.stdout.write(
        f"plain loop / trial = {math.exp(mean):.3f}, 95 % interval {low:.3f} to {high:.3f}, {len(logs)} pairs\n"
    )
