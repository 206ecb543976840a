"""Reading a result: from a file, a folder, a name; and in words where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from autotune.config import TrainConfig
from autotune.emitted import read_emitted
from autotune.errors import SpecError

DOCUMENT: dict[str, Any] = {
    "format": 1,
    "study": "mine",
    "config": TrainConfig(micro_batch_size=64, amp_dtype="bf16").to_dict(),
    "measured": {"samples_per_s": 208.0, "samples_per_s_ci95": [190.0, 230.0]},
    "baseline": {"config": TrainConfig().to_dict(), "samples_per_s": 100.0, "samples_per_s_ci95": None},
    "speedup": {"ratio": 2.08, "ci95": [1.9, 2.3]},
    "stability": {"verdict": "stable", "checks": []},
    "environment": {"device": "AMD EPYC", "device_kind": "cpu", "torch": "2.15.0"},
}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "studies" / "mine"
    folder.mkdir(parents=True)
    (folder / "best.yaml").write_text(yaml.safe_dump(DOCUMENT))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("name", ["mine", "studies/mine", "studies/mine/best.yaml"])
def test_a_name_a_folder_or_a_file(study: Path, name: str) -> None:
    emitted = read_emitted(name)
    assert emitted.config == TrainConfig(micro_batch_size=64, amp_dtype="bf16")
    assert (emitted.speedup, emitted.speedup_ci95) == (2.08, (1.9, 2.3))
    assert emitted.baseline.samples_per_s_ci95 is None
    assert emitted.environment["device_kind"] == "cpu"


def test_none_there_names_those_that_are(study: Path) -> None:
    with pytest.raises(SpecError, match=r"no result at his; results here: mine"):
        read_emitted("his")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "holds a list, not a mapping"),
        ("a: [", "cannot be read"),
        (yaml.safe_dump(DOCUMENT | {"format": 2}), "format 2; this version reads format 1"),
        (
            yaml.safe_dump({key: value for key, value in DOCUMENT.items() if key != "speedup"}),
            "is damaged: speedup is missing",
        ),
        (
            yaml.safe_dump(DOCUMENT | {"config": {"batch": 3}}),
            "is damaged: config.batch is not a key that this version knows",
        ),
    ],
)
def test_what_is_no_result_says_so(study: Path, content: str, message: str) -> None:
    (study / "best.yaml").write_text(content)
    with pytest.raises(SpecError, match=message):
        read_emitted(study)
