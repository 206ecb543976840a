"""The optimizer that a spec names: a class of `torch.optim`, in any case, with its own arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from autotune.errors import WorkloadError
from autotune.spec.workload import OptimizerSpec
from autotune.workload.problems import blaming, suggestion

_WHERE = "training.optimizer"
_NEEDS_CLOSURE = "LBFGS"


def find_optimizer(spec: OptimizerSpec) -> type[Optimizer]:
    """The class that `spec` names, its arguments' names checked. Raises WorkloadError."""
    known: dict[str, type[Optimizer]] = {
        name.lower(): item for name, item in vars(torch.optim).items() if _is_optimizer(item)
    }
    found = known.get(spec.name.lower())
    if found is None:
        raise WorkloadError(f"{_WHERE}: unknown optimizer '{spec.name}'{suggestion(spec.name.lower(), known)}")
    if found.__name__ == _NEEDS_CLOSURE:
        raise WorkloadError(
            f"{_WHERE}: {_NEEDS_CLOSURE} evaluates the loss several times a step, which is not supported"
        )
    taken = set(inspect.signature(found).parameters) - {"params"}
    for argument in spec.args:
        if argument not in taken:
            hint = suggestion(argument, taken)
            raise WorkloadError(f"{_WHERE}: {found.__name__} takes no argument '{argument}'{hint}")
        if argument == "fused":
            raise WorkloadError(f"{_WHERE}: fused is searched; to fix it, give search.fused_optimizer one value")
    return found


def _is_optimizer(item: Any) -> bool:
    return inspect.isclass(item) and issubclass(item, Optimizer) and item is not Optimizer


def build_optimizer(spec: OptimizerSpec, parameters: Iterable[nn.Parameter], *, fused: bool) -> Optimizer:
    """An optimizer over `parameters`; `fused=False` leaves the choice to PyTorch. Raises WorkloadError."""
    found: Any = find_optimizer(spec)
    arguments = spec.args | ({"fused": True} if fused else {})
    with blaming(f"{_WHERE}: {found.__name__}"):
        built: Optimizer = found(parameters, **arguments)
    return built
