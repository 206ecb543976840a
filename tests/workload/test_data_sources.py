"""One contract for every data source that the folder holds."""

from __future__ import annotations

import pickle
import pkgutil
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import autotune.workload.data
from autotune.errors import WorkloadError
from autotune.spec.workload import DataSpec
from autotune.workload.data import count_classes, prepare_data

SOURCES = [module.name for module in pkgutil.iter_modules(autotune.workload.data.__path__)]
CLASSES, PER_CLASS = 3, 4


def write_images(root: Path, classes: int = CLASSES, per_class: int = PER_CLASS) -> Path:
    rng = np.random.default_rng(0)
    for label in range(classes):
        folder = root / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(per_class):
            pixels = rng.integers(0, 255, (24, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.{'jpg' if number % 2 else 'png'}")
    return root


def toy_data(count: int) -> list[tuple[torch.Tensor, int]]:
    return [(torch.full((3, 16, 16), float(number)), number % CLASSES) for number in range(count)]


def example(source: str, tmp_path: Path) -> list[dict[str, Any]]:
    """`data` sections that use `source`, each of CLASSES × PER_CLASS samples. A new source adds its own here."""
    images = {"image_size": 16}
    synthetic = {"samples": CLASSES * PER_CLASS, "classes": CLASSES, **images}
    match source:
        case "image_folder":
            root = str(write_images(tmp_path / "images"))
            return [{source: {"path": root, **images, "augment": augment}} for augment in ("timm", "none")]
        case "synthetic":
            return [{source: {**synthetic, "storage": storage}} for storage in ("memory", "jpeg")]
        case "timm":
            return [{source: {"name": "", "root": str(write_images(tmp_path / "timm")), **images}}]
        case "factory":
            return [{source: f"{__name__}:toy_data", "args": {"count": CLASSES * PER_CLASS}}]
    raise NotImplementedError(f"the contract has no example of data.{source}")


def test_every_source_is_a_field_of_the_spec() -> None:
    assert set(SOURCES) == set(DataSpec.model_fields) - {"args", "collate"}


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_keeps_the_contract(source: str, tmp_path: Path) -> None:
    for section in example(source, tmp_path):
        prepared = prepare_data(DataSpec.model_validate(section), tmp_path)
        dataset = prepared.dataset(tmp_path / "unreadable.txt")
        assert prepared.num_classes in (CLASSES, None)
        assert len(dataset) == CLASSES * PER_CLASS  # type: ignore[arg-type]
        inputs, target = dataset[0]
        assert (inputs.shape, inputs.dtype) == ((3, 16, 16), torch.float32)
        assert 0 <= int(target) < CLASSES
        assert inputs.is_contiguous()
        pickle.loads(pickle.dumps(dataset))
        inputs, targets = next(iter(DataLoader(dataset, batch_size=5)))
        assert (inputs.shape, targets.shape, targets.dtype) == ((5, 3, 16, 16), (5,), torch.int64)
        assert not (tmp_path / "unreadable.txt").exists()


@pytest.mark.parametrize("source", SOURCES)
def test_seeds_repeat_every_sample(source: str, tmp_path: Path) -> None:
    for section in example(source, tmp_path):
        drawn = []
        for _ in range(2):
            torch.manual_seed(5)
            random.seed(5)
            np.random.seed(5)
            dataset = prepare_data(DataSpec.model_validate(section), tmp_path).dataset()
            drawn.append([dataset[position] for position in range(CLASSES * PER_CLASS)])
        for (first, one), (second, other) in zip(*drawn, strict=True):
            assert one == other
            assert torch.equal(first, second)


def test_relative_paths_begin_at_the_spec(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    section = {"image_folder": {"path": "images", "image_size": 16}}
    dataset = prepare_data(DataSpec.model_validate(section), tmp_path).dataset()
    assert len(dataset) == CLASSES * PER_CLASS  # type: ignore[arg-type]


def test_greyscale_images_of_timm_data_sets_become_rgb(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("L", (20, 20)).save(tmp_path / "a" / "grey.png")
    section = {"timm": {"name": "", "root": str(tmp_path), "image_size": 16}}
    inputs, _ = prepare_data(DataSpec.model_validate(section), tmp_path).dataset()[0]
    assert inputs.shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"name": "torch/cifar10", "root": "nowhere"},
            "data.timm: torch/cifar10 raised RuntimeError: Dataset not found",
        ),
        ({"name": "torch/cifr10", "root": "nowhere"}, "data.timm: torch/cifr10 raised"),
        ({"name": "", "root": "nowhere"}, "data.timm:  raised"),
    ],
)
def test_timm_data_sets_that_cannot_be_opened(tmp_path: Path, section: dict[str, Any], message: str) -> None:
    prepared = prepare_data(DataSpec.model_validate({"timm": section}), tmp_path)
    with pytest.raises(WorkloadError) as caught:
        prepared.dataset()
    assert str(caught.value).startswith(message)


def test_classes_are_counted_in_the_common_ways() -> None:
    class Said:
        num_classes = 3

    class Named:
        classes = ("a", "b")

    class Reader:
        class_to_idx = dict.fromkeys("abcd", 0)

    class Read:
        reader = Reader()

    assert [count_classes(item()) for item in (Said, Named, Read, object)] == [3, 2, 4, None]
