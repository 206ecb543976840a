"""Batches of every structure that a collate function may return."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from autotune.training import batch_size, input_shape, move_batch, structure

META = torch.device("meta")


class Pair(NamedTuple):
    inputs: Tensor
    name: str


class Movable:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.data = torch.zeros(7, 2)

    def to(self, device: torch.device, non_blocking: bool = False) -> Movable:
        self.calls.append((device, non_blocking))
        return self


class OldMovable:
    def to(self, device: torch.device) -> str:
        return f"moved to {device.type}"


def tensor() -> Tensor:
    return torch.zeros(3, 2)


@pytest.mark.parametrize(
    "batch",
    [
        tensor(),
        (tensor(), 1),
        [tensor(), "label"],
        {"a": tensor(), "b": [tensor()]},
        OrderedDict(a=tensor()),
        defaultdict(list, a=tensor()),
        UserDict(a=tensor()),
        Pair(tensor(), "x"),
        ((tensor(),), {"deep": (tensor(), None)}),
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_structures_keep_their_type_and_every_tensor_moves(batch: Any) -> None:
    moved = move_batch(batch, META)
    assert type(moved) is type(batch)
    assert all(leaf.device == META for leaf in leaves(moved) if isinstance(leaf, Tensor))
    assert [type(leaf) for leaf in leaves(moved)] == [type(leaf) for leaf in leaves(batch)]
    assert all(leaf.device.type == "cpu" for leaf in leaves(batch) if isinstance(leaf, Tensor))
    assert batch_size(batch) == 3


def leaves(batch: Any) -> list[Any]:
    if isinstance(batch, dict | UserDict):
        return [leaf for part in batch.values() for leaf in leaves(part)]
    if isinstance(batch, tuple | list):
        return [leaf for part in batch for leaf in leaves(part)]
    return [batch]


def test_a_defaultdict_keeps_its_default() -> None:
    assert move_batch(defaultdict(list, a=tensor()), META)["missing"] == []


def test_a_read_only_mapping_becomes_a_dict() -> None:
    assert move_batch(MappingProxyType({"a": tensor()}), META)["a"].device == META


def test_objects_with_a_method_to_are_asked() -> None:
    movable = Movable()
    assert move_batch([movable], META, non_blocking=True) == [movable]
    assert movable.calls == [(META, True)]
    assert move_batch(OldMovable(), META, non_blocking=True) == "moved to meta"
    assert batch_size(movable) == 7


def test_channels_last_concerns_floating_tensors_of_four_dimensions_only() -> None:
    batch = (torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4, dtype=torch.long), torch.zeros(2, 3, 4))
    images, masks, sequences = move_batch(batch, torch.device("cpu"), memory_format=torch.channels_last)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert masks.is_contiguous()
    assert sequences.is_contiguous()


def test_batch_size_passes_over_scalars_and_looks_into_objects() -> None:
    assert batch_size((torch.tensor(1.0), {"x": torch.zeros(5)})) == 5
    assert batch_size(SimpleNamespace(x=torch.zeros(6, 1))) == 6
    with pytest.raises(TypeError, match="no tensor"):
        batch_size({"text": ["a", "b"]})


class Features(UserDict[str, Any]):
    """As transformers' BatchFeature: a mapping that moves itself."""

    def to(self, device: Any, **_: Any) -> Features:
        return Features({key: value.to(device) for key, value in self.items()})


def test_images_of_a_mapping_that_moves_itself_are_laid_out_too() -> None:
    moved = move_batch(Features(pixels=torch.zeros(2, 3, 4, 4)), torch.device("cpu"), memory_format=torch.channels_last)
    assert isinstance(moved, Features)
    assert moved["pixels"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("batch", "shape"),
    [
        ({"label": torch.zeros(2), "image": torch.zeros(2, 3, 4, 4)}, (3, 4, 4)),
        ({"ids": torch.zeros(2, 5), "label": torch.zeros(2)}, (5,)),
        (Features(pixels=torch.zeros(2, 3, 4, 4)), (3, 4, 4)),
        ((torch.zeros(2, 7), torch.zeros(2)), (7,)),
        ((["a", "b"], torch.zeros(2)), None),
        ("text", None),
    ],
)
def test_the_shape_of_an_input(batch: Any, shape: Any) -> None:
    assert input_shape(batch) == shape


def test_a_sample_in_words() -> None:
    assert structure({"image": torch.zeros(3, 48, 48), "label": 1}) == "image 3×48×48, label scalar"
    assert structure((torch.zeros(3), {"a": "text"})) == "3, (a str)"
