"""Each thing that a user can get wrong about model, data, loss or optimizer, and the words for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from autotune.errors import WorkloadError
from autotune.spec import Spec
from autotune.workload import Prepared, prepare
from autotune.workload.loss import cross_entropy


def problem(spec: Spec, folder: Path, use: Any = None) -> str:
    """The message of the WorkloadError that preparing, or using what was prepared, ends with."""
    with pytest.raises(WorkloadError) as caught:
        prepared = prepare(spec, folder)
        if use is not None:
            use(prepared)
    return str(caught.value)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"timm": "resnet5"}}, "model.timm: unknown model 'resnet5'; did you mean resnet50?"),
        ({"model": {"timm": "qqqqqqqq"}}, "model.timm: unknown model 'qqqqqqqq'"),
        (
            {"model": {"factory": "no_such_module:build"}},
            "model.factory: no module named 'no_such_module'; install it, or put it into the spec's folder",
        ),
        ({"model": {"factory": "json:laods"}}, "model.factory: json has no 'laods'; did you mean loads?"),
        (
            {"model": {"factory": "json:decoder.JSONDecodr"}},
            "json.decoder has no 'JSONDecodr'; did you mean JSONDecoder?",
        ),
        ({"model": {"factory": "json:__name__"}}, "model.factory: json:__name__ is not callable, but a str"),
        ({"data": {"factory": "json:laods"}}, "data.factory: json has no 'laods'"),
        (
            {"training": {"loss": "torch.nn:CrossEntropyLoss"}},
            "training.loss: torch.nn:CrossEntropyLoss: CrossEntropyLoss is a criterion, called with outputs",
        ),
        ({"training": {"loss": "torch.nn.functional:mse_loss"}}, "mse_loss is a criterion, called with outputs and"),
        ({"training": {"loss": "json:laods"}}, "training.loss: json has no 'laods'"),
        (
            {"training": {"optimizer": {"name": "adamv"}}},
            "training.optimizer: unknown optimizer 'adamv'; did you mean adam",
        ),
        (
            {"training": {"optimizer": {"name": "sgd", "momentun": 0.9}}},
            "training.optimizer: SGD takes no argument 'momentun'; did you mean momentum?",
        ),
        ({"training": {"optimizer": {"name": "lbfgs"}}}, "training.optimizer: LBFGS evaluates the loss several times"),
        ({"training": {"optimizer": {"name": "sgd", "fused": True}}}, "give search.fused_optimizer one value"),
    ],
)
def test_what_preparing_finds(tmp_path: Path, make_spec: Any, sections: dict[str, Any], message: str) -> None:
    assert message in problem(make_spec(**sections), tmp_path)


def test_a_module_that_fails_while_it_is_imported(tmp_path: Path, make_spec: Any, module: Any) -> None:
    name = module("import no_such_dependency")
    found = problem(make_spec(model={"factory": f"{name}:build"}), tmp_path)
    assert found == (
        f"model.factory: importing {name} raised ModuleNotFoundError: No module named 'no_such_dependency' "
        f"({tmp_path / name}.py:1)"
    )
    name = module("raise RuntimeError('broken')")
    assert problem(make_spec(data={"factory": f"{name}:build"}), tmp_path) == (
        f"data.factory: importing {name} raised RuntimeError: broken ({tmp_path / name}.py:1)"
    )


def test_a_module_that_is_no_python(tmp_path: Path, make_spec: Any, module: Any) -> None:
    name = module("import torch\ndef build(:\n")
    assert f"({tmp_path / name}.py:2)" in problem(make_spec(model={"factory": f"{name}:build"}), tmp_path)


def test_where_in_the_users_own_code_something_failed(tmp_path: Path, make_spec: Any, module: Any) -> None:
    """Not where in PyTorch, which their code called."""
    name = module("import torch\n\ndef build():\n    return make()\n\ndef make():\n    return torch.nn.Linear(-1, 2)\n")
    found = problem(make_spec(model={"factory": f"{name}:build"}), tmp_path, Prepared.model)
    assert found.endswith(f" ({tmp_path / name}.py:7, in make)")


def test_all_that_preparing_finds_is_told_at_once(tmp_path: Path, make_spec: Any) -> None:
    wrong = {"optimizer": {"name": "adamv"}, "loss": "json:laods"}
    spec = make_spec(model={"timm": "resnet5"}, training=wrong, data={"factory": "json:loads", "collate": "json:no"})
    found = problem(spec, tmp_path).splitlines()
    assert [line.partition(":")[0] for line in found] == [
        "training.optimizer",
        "training.loss",
        "data.collate",
        "model.timm",
    ]


def test_the_default_loss_with_batches_of_another_kind() -> None:
    with pytest.raises(TypeError, match=r"cross_entropy needs batches of \(inputs, targets\).* dicts of image, label"):
        cross_entropy(torch.nn.Linear(1, 1), {"image": torch.zeros(2, 1), "label": torch.zeros(2)})


@pytest.mark.parametrize(
    ("sections", "use", "message"),
    [
        (
            {"model": {"factory": "MODULE:needs_argument"}},
            Prepared.model,
            "model.factory: MODULE:needs_argument raised TypeError: needs_argument() missing 1 required positional",
        ),
        (
            {"model": {"factory": "MODULE:text"}},
            Prepared.model,
            "model.factory: MODULE:text returned a str, not an nn.Module",
        ),
        (
            {"model": {"factory": "MODULE:three_outputs"}},
            Prepared.model,
            "model: 3 outputs (its num_classes), but the data set has 4 classes",
        ),
        (
            {"model": {"timm": "resnet18", "args": {"num_classes": 2}}},
            Prepared.model,
            "model: 2 outputs (its num_classes), but the data set has 4 classes",
        ),
        ({"model": {"timm": "resnet18", "args": {"dept": 3}}}, Prepared.model, "model.timm: resnet18 raised TypeError"),
        (
            {"data": {"factory": "MODULE:needs_argument"}},
            Prepared.dataset,
            "data.factory: MODULE:needs_argument raised TypeError",
        ),
        ({"data": {"factory": "MODULE:text"}}, Prepared.dataset, None),
        ({"data": {"factory": "MODULE:number"}}, Prepared.dataset, "MODULE:number returned a int, not a Dataset"),
        ({"data": {"factory": "MODULE:loader"}}, Prepared.dataset, "MODULE:loader returned a DataLoader; return the"),
        (
            {"training": {"optimizer": {"name": "sgd", "momentum": -1}}},
            lambda prepared: prepared.optimizer(torch.nn.Linear(1, 1)),
            "training.optimizer: SGD raised ValueError: Invalid momentum value: -1",
        ),
    ],
)
def test_what_building_finds(
    tmp_path: Path, make_spec: Any, module: Any, sections: dict[str, Any], use: Any, message: str | None
) -> None:
    name = module(
        "import torch\n"
        "from torch.utils.data import DataLoader\n"
        "def needs_argument(width): ...\n"
        "def text(): return 'x'\n"
        "def number(): return 1\n"
        "def loader(): return DataLoader([1])\n"
        "def three_outputs():\n"
        "    model = torch.nn.Linear(1, 3)\n"
        "    model.num_classes = 3\n"
        "    return model\n"
    )
    spec = make_spec(**json.loads(json.dumps(sections).replace("MODULE", name)))
    if message is None:
        use(prepare(spec, tmp_path))
    else:
        assert message.replace("MODULE", name) in problem(spec, tmp_path, use)


@pytest.mark.parametrize(
    "raised",
    ["MemoryError()", "torch.OutOfMemoryError('CUDA out of memory')", "RuntimeError('CUDA error: out of memory')"],
)
def test_running_out_of_memory_is_no_mistake(tmp_path: Path, make_spec: Any, module: Any, raised: str) -> None:
    name = module(f"import torch\ndef build(): raise {raised}\n")
    prepared = prepare(make_spec(model={"factory": f"{name}:build"}), tmp_path)
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        prepared.model()
    assert not isinstance(caught.value, WorkloadError)


def test_the_cause_of_a_failed_factory_is_kept(tmp_path: Path, make_spec: Any, module: Any) -> None:
    name = module("def build(): return {}['missing']\n")
    with pytest.raises(WorkloadError) as caught:
        prepare(make_spec(model={"factory": f"{name}:build"}), tmp_path).model()
    assert isinstance(caught.value.__cause__, KeyError)
