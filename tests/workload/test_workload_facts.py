"""What the search learns about a workload before its first trial."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

from autotune.errors import WorkloadError
from autotune.report import words
from autotune.spec import Spec
from autotune.workload import Prepared, prepare, workload_facts

CPU = torch.device("cpu")


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([{"ids": torch.zeros(5)}])


class Listed(Dataset[Any]):
    def __init__(self, *samples: Any) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


class Fixed:
    """A data source that gives what it was given."""

    num_classes = None

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset

    def dataset(self, unreadable_log: Path | None = None) -> Dataset[Any]:
        return self._dataset


def prepared(tmp_path: Path, model: str = "resnet10t", optimizer: str = "sgd") -> Prepared:
    values = {
        "model": {"timm": model},
        "data": {"synthetic": {"samples": 20, "classes": 2, "image_size": 16}},
        "training": {"optimizer": {"name": optimizer}},
        "budget": "60s",
    }
    return prepare(Spec.model_validate(values), tmp_path)


def test_an_image_classifier(tmp_path: Path) -> None:
    workload = prepared(tmp_path)
    facts = workload_facts(workload, CPU)
    assert facts.parameters == sum(parameter.numel() for parameter in workload.model().parameters())
    assert facts.dataset_samples == 20
    assert facts.input_shape == (3, 16, 16)
    assert facts.activation_checkpointing_refusal is None
    assert facts.fused_optimizer_refusal is None
    assert facts.batch_norm


def test_what_does_not_apply_has_a_reason(tmp_path: Path) -> None:
    facts = workload_facts(prepared(tmp_path, model="inception_v4", optimizer="rmsprop"), CPU)
    assert facts.activation_checkpointing_refusal is not None
    assert "not supported" in facts.activation_checkpointing_refusal
    assert facts.fused_optimizer_refusal == "RMSprop has no fused implementation"


@pytest.mark.parametrize(
    ("dataset", "samples", "shape"),
    [
        (Stream(), None, (5,)),
        (Listed({"ids": torch.zeros(5)}), 1, (5,)),
        (Listed({"label": torch.tensor(1), "ids": torch.zeros(5), "image": torch.zeros(3, 8, 8)}), 1, (3, 8, 8)),
        (Listed(torch.zeros(5)), 1, (5,)),
        (Listed((torch.zeros(2, 3), 1), (torch.zeros(2, 3), 0)), 2, (2, 3)),
        (Listed(("text", 1)), 1, None),
    ],
)
def test_data_sets_of_every_kind(tmp_path: Path, dataset: Any, samples: Any, shape: Any) -> None:
    workload = dataclasses.replace(prepared(tmp_path), data=Fixed(dataset))
    facts = workload_facts(workload, CPU)
    assert (facts.dataset_samples, facts.input_shape) == (samples, shape)


def test_an_empty_data_set_is_refused(tmp_path: Path) -> None:
    workload = dataclasses.replace(prepared(tmp_path), data=Fixed(Listed()))
    with pytest.raises(WorkloadError, match="the data set is empty"):
        workload_facts(workload, CPU)


def test_a_first_sample_that_fails_names_the_cause(tmp_path: Path) -> None:
    workload = dataclasses.replace(prepared(tmp_path), data=Fixed(Listed(object())))
    with pytest.raises(WorkloadError, match="data: making a batch of the first sample raised TypeError"):
        workload_facts(workload, CPU)


def test_samples_that_are_dicts_are_told_by_their_keys(tmp_path: Path) -> None:
    dataset = Listed({"image": torch.zeros(3, 48, 48), "label": 1, "boxes": {"corners": torch.zeros(2, 4)}})
    facts = workload_facts(dataclasses.replace(prepared(tmp_path), data=Fixed(dataset)), CPU)
    assert facts.samples == "dicts: image 3×48×48, label scalar, boxes (corners 2×4)"
    assert words.samples(facts) == facts.samples
    assert words.samples(facts.model_copy(update={"samples": None})) == "3 × 48 × 48"


def test_the_specs_own_function_makes_the_batch(tmp_path: Path) -> None:
    workload = dataclasses.replace(
        prepared(tmp_path), data=Fixed(Listed(object())), collate=lambda samples: torch.zeros(len(samples), 7)
    )
    assert workload_facts(workload, CPU).input_shape == (7,)
