"""Generated data: the same every time, learnable, and cached as files that no process ever sees half-written."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from autotune.errors import EnvironmentFailure, WorkloadError
from autotune.spec.workload import DataSpec
from autotune.workload import jpeg_cache
from autotune.workload.data import prepare_data
from autotune.workload.jpeg_cache import cached_jpegs
from autotune.workload.patterns import WRONG_LABELS, Patterns

SMALL: dict[str, int] = {"samples": 12, "classes": 3, "size": 16, "seed": 0}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "autotune" / "synthetic"


def test_patterns_repeat_and_differ_by_seed_and_position() -> None:
    first, again = Patterns.generate(**SMALL), Patterns.generate(**SMALL)
    other = Patterns.generate(**(SMALL | {"seed": 1}))
    assert np.array_equal(first.image(3), again.image(3))
    assert not np.array_equal(first.image(3), other.image(3))
    assert not np.array_equal(first.image(0), first.image(3))
    assert (first.image(0).shape, first.image(0).dtype) == ((16, 16, 3), np.uint8)


def test_a_tenth_of_the_labels_is_wrong_and_every_class_has_its_share() -> None:
    patterns = Patterns.generate(samples=5000, classes=10, size=8, seed=0)
    wrong = (patterns.labels != patterns.sources).mean()
    assert wrong == pytest.approx(WRONG_LABELS * 0.9, abs=0.02)
    assert np.bincount(patterns.labels, minlength=10).min() > 400


def test_pixels_do_not_overflow() -> None:
    patterns = Patterns.generate(samples=50, classes=50, size=16, seed=0)
    low = np.stack([patterns.templates[patterns.sources[i]].min() for i in range(50)])
    assert all(patterns.image(i).min() >= low[i] for i in range(50))


@pytest.mark.parametrize("storage", ["memory", "jpeg"])
def test_a_small_network_learns_the_classes_but_not_the_wrong_labels(storage: str) -> None:
    section = {"samples": 640, "classes": 10, "image_size": 32, "storage": storage, "augment": "none"}
    dataset = prepare_data(DataSpec.model_validate({"synthetic": section}), Path()).dataset()
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        for inputs, targets in DataLoader(dataset, batch_size=32, shuffle=True, drop_last=True):
            loss = functional.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert losses[0] > 0.8 * math.log(10)
    assert 0.3 < np.mean(losses[-20:]) < 0.5 * math.log(10)


def test_jpeg_files_are_larger_than_the_input_and_written_once(cache: Path) -> None:
    section = DataSpec.model_validate({"synthetic": {"samples": 6, "classes": 2, "image_size": 56, "storage": "jpeg"}})
    prepare_data(section, Path())
    files = sorted(cache.rglob("*.jpg"))
    times = [file.stat().st_mtime_ns for file in files]
    with Image.open(files[0]) as image:
        assert (image.size, image.format) == ((64, 64), "JPEG")
    assert len(files) == 6
    source = prepare_data(section, Path())
    assert [file.stat().st_mtime_ns for file in files] == times
    assert source.num_classes == 2
    assert source.dataset()[0][0].shape == (3, 56, 56)


@pytest.mark.parametrize("change", [{"samples": 13}, {"classes": 4}, {"size": 17}, {"seed": 1}])
def test_every_parameter_has_files_of_its_own(cache: Path, change: dict[str, int]) -> None:
    cached_jpegs(**SMALL)
    cached_jpegs(**(SMALL | change))
    assert len(list(cache.iterdir())) == 2


def test_an_interrupted_write_leaves_nothing_that_is_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0
    save = Image.Image.save

    def fail_at_the_fifth(image: Image.Image, *args: Any, **kwargs: Any) -> None:
        nonlocal written
        written += 1
        if written == 5:
            raise OSError(28, "No space left on device")
        save(image, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", fail_at_the_fifth)
    with pytest.raises(EnvironmentFailure, match=r"cannot write the synthetic data to .*: No space left on device"):
        cached_jpegs(**SMALL)
    assert list(cache.iterdir()) == []
    assert len(cached_jpegs(**SMALL)) == SMALL["samples"]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.jpg")}


@pytest.mark.skipif(sys.platform != "linux", reason="several processes on Linux only")
def test_files_are_the_same_from_however_many_processes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forks = []
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: forks.append(None) or fork())
    found = []
    for cores in (1, 3):
        monkeypatch.setattr(jpeg_cache, "usable_cores", lambda cores=cores: cores)
        index = cached_jpegs(**SMALL | {"samples": 400})
        found.append(files_of(index.root))
        index.root.rename(cache / str(cores))
    assert len(forks) == 3
    assert len(found[0]) == 400
    assert found[0] == found[1]


@pytest.mark.skipif(sys.platform != "linux", reason="several processes on Linux only")
def test_a_full_disk_is_said_by_whichever_process_meets_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jpeg_cache, "usable_cores", lambda: 2)
    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(EnvironmentFailure, match=r"cannot write the synthetic data to .*: No space left on device"):
        cached_jpegs(**SMALL | {"samples": 300})
    assert list(cache.iterdir()) == []


def test_what_a_killed_process_has_written_is_not_used_but_removed(cache: Path) -> None:
    code = (
        "import time; from autotune.workload import jpeg_cache\n"
        "jpeg_cache.usable_cores = lambda: 2\n"
        "jpeg_cache.Image.Image.save = lambda image, path, **_: (path.touch(), time.sleep(0.01))\n"
        "jpeg_cache.cached_jpegs(samples=100_000, classes=3, size=16, seed=0)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 60
        while len(list(cache.rglob("*.jpg"))) < 10 and time.monotonic() < deadline:
            time.sleep(0.01)
        (partial,) = cache.iterdir()
        cached_jpegs(**SMALL)
        assert partial.exists(), "somebody writes into it"
    finally:
        process.kill()
        process.wait()
    assert sorted(cache.iterdir()) == [partial, cache / "12-of-3-at-16-seed-0-v1"]
    while partial.exists() and time.monotonic() < deadline:  # until the last process that wrote has noticed
        cached_jpegs(**SMALL | {"seed": 1})
        (cache / "12-of-3-at-16-seed-1-v1").rename(cache / f"again-{time.monotonic_ns()}")
    assert not partial.exists()
    assert not list(cache.glob("100000-*"))


def test_the_loser_of_a_race_uses_what_the_winner_wrote(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def lose(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        cached_jpegs(**SMALL)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", lose)
    assert len(cached_jpegs(**SMALL)) == SMALL["samples"]
    assert len(list(cache.iterdir())) == 1


def test_processes_that_write_at_once_agree(cache: Path) -> None:
    code = (
        f"from autotune.workload.jpeg_cache import cached_jpegs; print(len(cached_jpegs(**{SMALL | {'samples': 300}})))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ.copy()) for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0] for process in running] == [b"300\n"] * 2
    assert len(list(cache.iterdir())) == 1


def test_files_that_were_deleted_are_noticed(cache: Path) -> None:
    cached_jpegs(**SMALL)
    next(cache.rglob("*.jpg")).unlink()
    with pytest.raises(WorkloadError, match=r"data\.synthetic: 1 of 12 files are gone from .*; delete it"):
        cached_jpegs(**SMALL)


def test_without_a_cache_variable_files_go_to_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cached_jpegs(**SMALL).root.is_relative_to(tmp_path / "home" / ".cache" / "autotune")
