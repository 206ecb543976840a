"""Image folders as they are in practice: nested, mixed, damaged, empty, or not there."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from autotune.errors import WorkloadError
from autotune.workload import images
from autotune.workload.image_index import scan_image_folder
from autotune.workload.images import ImageFiles, training_transform


def write_image(path: Path, shade: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(shade).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scan(root: Path) -> list[tuple[str, int]]:
    index = scan_image_folder(root, "data.image_folder")
    return [(str(index.path(i).relative_to(root)), index.target(i)) for i in range(len(index))]


def failure(root: Path) -> WorkloadError:
    with pytest.raises(WorkloadError) as caught:
        scan_image_folder(root, "data.image_folder")
    return caught.value


def test_a_listing_is_sorted_and_leaves_out_what_is_hidden_or_no_image(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/1.png", "a/deep/x.jpeg", "a/ü.webp", "b/.hidden.jpg", "a/.trash/y.jpg", ".git/z.jpg"):
        write_image(tmp_path / name)
    (tmp_path / "b" / "notes.txt").touch()
    (tmp_path / "README.jpg").touch()
    assert scan(tmp_path) == [("a/deep/x.jpeg", 0), ("a/ü.webp", 0), ("b/1.png", 1), ("b/2.JPG", 1)]
    assert scan_image_folder(tmp_path, "data").classes == ("a", "b")


def test_a_folder_that_is_not_there_or_no_folder(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert str(failure(missing)) == f"data.image_folder: cannot read {missing}: No such file or directory"
    write_image(tmp_path / "file.png")
    assert str(failure(tmp_path / "file.png")).endswith("file.png: Not a directory")


def test_images_without_class_folders(tmp_path: Path) -> None:
    write_image(tmp_path / "1.jpg")
    (tmp_path / ".hidden").mkdir()
    assert str(failure(tmp_path)) == (
        f"data.image_folder: no class folders in {tmp_path}; put the images of each class into a folder of its own"
    )


def test_empty_class_folders_are_named_all_at_once(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    assert str(failure(tmp_path)) == f"data.image_folder: no images in any of the 3 class folders of {tmp_path}"
    write_image(tmp_path / "b" / "1.jpg")
    assert failure(tmp_path).problems == (
        f"data.image_folder: no images in class folder {tmp_path / 'a'}",
        f"data.image_folder: no images in class folder {tmp_path / 'c'}",
    )


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Six images in two classes; of the first class one is cut short, one is no image, one is a broken PNG."""
    root = tmp_path / "images"
    for number in range(3):
        write_image(root / "a" / f"{number}.jpg", number)
        write_image(root / "b" / f"{number}.png", number)
    cut_short(root / "a" / "1.jpg")
    (root / "a" / "2.jpg").write_text("no image")
    cut_short(root / "b" / "0.png")
    return root


def open_folder(root: Path, log: Path | None = None) -> ImageFiles:
    return ImageFiles(scan_image_folder(root, "data"), training_transform(32, "none"), log)


def test_an_unreadable_image_is_replaced_by_the_next_readable_one_and_reported_once(damaged: Path) -> None:
    log = damaged.parent / "log.txt"
    dataset = open_folder(damaged, log)
    expected = dataset[4]
    for _ in range(2):
        inputs, target = dataset[1]
        assert target == 1
        assert torch.equal(inputs, expected[0])
    assert log.read_text().splitlines() == [str(damaged / name) for name in ("a/1.jpg", "a/2.jpg", "b/0.png")]
    open_folder(damaged)[1]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_loader_processes_report_too(damaged: Path, context: str) -> None:
    log = damaged.parent / "log.txt"
    loader = DataLoader(open_folder(damaged, log), batch_size=2, num_workers=1, multiprocessing_context=context)
    assert sum(len(targets) for _, targets in loader) == 6
    assert sorted(log.read_text().splitlines()) == [str(damaged / name) for name in ("a/1.jpg", "a/2.jpg", "b/0.png")]


def test_nothing_but_unreadable_images_is_an_error(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_UNREADABLE_IN_A_ROW", 3)
    first = damaged / "a" / "1.jpg"
    with pytest.raises(
        WorkloadError, match=f"3 images in a row are unreadable in {damaged}, the first is {first}: "
    ) as caught:
        open_folder(damaged)[1]
    assert caught.value.__cause__ is not None


def test_palette_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    for mode in ("L", "P", "RGBA", "CMYK"):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.new(mode, (40, 40)).save(tmp_path / "a" / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}")
    dataset = open_folder(tmp_path)
    assert [dataset[position][0].shape for position in range(4)] == [(3, 32, 32)] * 4


def test_augmentation_draws_and_none_does_not() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))
    plain, augmented = training_transform(32, "none"), training_transform(32, "timm")
    torch.manual_seed(0)
    random.seed(0)
    state = (torch.get_rng_state(), random.getstate())
    assert torch.equal(plain(image), plain(image))
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]
    assert not torch.equal(augmented(image), augmented(image))
