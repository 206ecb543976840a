"""The optimizer that a spec names: a class of `torch.optim`, in any case, or the user's own factory."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from autotune.errors import WorkloadError
from autotune.spec.workload import OptimizerSpec
from autotune.training import fused_optimizer_refusal
from autotune.workload.factory import load_callable
from autotune.workload.problems import blaming, suggestion

_WHERE = "training.optimizer"


class BuildOptimizer(Protocol):
    def __call__(self, model: nn.Module, *, fused: bool = False) -> Optimizer:
        """A new optimizer of the model's parameters; `fused=False` leaves the implementation to PyTorch. Raises
        WorkloadError."""

    def fused_refusal(self, model: nn.Module, device: torch.device) -> str | None:
        """Why it has no fused implementation on `device`; None if it has one. `model` may be on the CPU."""


def prepare_optimizer(spec: OptimizerSpec) -> BuildOptimizer:
    """The optimizer that `spec` names, after a check of its argument names. Raises WorkloadError."""
    if "fused" in spec.args:
        raise WorkloadError(f"{_WHERE}: fused is searched; to fix it, give search.fused_optimizer one value")
    return _class_of_torch(spec) if spec.factory is None else _factory(spec.factory, spec.args)


@dataclass(frozen=True)
class _ClassOfTorch:
    found: Any
    args: dict[str, Any]

    def __call__(self, model: nn.Module, *, fused: bool = False) -> Optimizer:
        with blaming(f"{_WHERE}: {self.found.__name__}"):
            built: Optimizer = self.found(model.parameters(), **self.args, **({"fused": True} if fused else {}))
        return built

    def fused_refusal(self, model: nn.Module, device: torch.device) -> str | None:
        return fused_optimizer_refusal(self.found, device)


def _class_of_torch(spec: OptimizerSpec) -> _ClassOfTorch:
    known = {name.lower(): item for name, item in vars(torch.optim).items() if _is_optimizer(item)}
    found = known.get(spec.name.lower())
    if found is None:
        raise WorkloadError(f"{_WHERE}: unknown optimizer '{spec.name}'{suggestion(spec.name.lower(), known)}")
    _refuse_closures(found)
    taken = set(inspect.signature(found).parameters) - {"params"}
    for argument in spec.args:
        if argument not in taken:
            hint = suggestion(argument, taken)
            raise WorkloadError(f"{_WHERE}: {found.__name__} takes no argument '{argument}'{hint}")
    return _ClassOfTorch(found, spec.args)


@dataclass(frozen=True)
class _Factory:
    name: str
    call: Callable[..., Any]
    args: dict[str, Any]

    def __call__(self, model: nn.Module, *, fused: bool = False) -> Optimizer:
        with blaming(f"{_WHERE}: {self.name}"):
            built = self.call(model, **self.args, **({"fused": True} if fused else {}))
        if not isinstance(built, Optimizer):
            raise WorkloadError(f"{_WHERE}: {self.name} returned a {type(built).__name__}, not a torch.optim.Optimizer")
        _refuse_closures(type(built), f"{self.name}: ")
        own = {id(parameter) for parameter in model.parameters()}
        if any(id(parameter) not in own for group in built.param_groups for parameter in group["params"]):
            raise WorkloadError(
                f"{_WHERE}: {self.name} returned an optimizer for parameters that its model does not have; build it "
                "from the model that the factory is called with"
            )
        return built

    def fused_refusal(self, model: nn.Module, device: torch.device) -> str | None:
        if not self._takes_fused():
            return f"{self.name} takes no argument 'fused'"
        try:
            built = self(model, fused=True)
        except WorkloadError as error:
            return str(error)
        if not all(group.get("fused") for group in built.param_groups):
            return f"{self.name} does not pass fused=True on to {type(built).__name__}"
        return fused_optimizer_refusal(type(built), device)

    def _takes_fused(self) -> bool:
        parameters = inspect.signature(self.call).parameters
        return "fused" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _factory(name: str, args: dict[str, Any]) -> _Factory:
    call = load_callable(_WHERE, name)
    try:
        inspect.signature(call).bind(None, **args)
    except TypeError as error:
        raise WorkloadError(
            f"{_WHERE}: {name}: {error}; it is called with the model, and with the other keys as keyword arguments"
        ) from error
    return _Factory(name, call, args)


def _is_optimizer(item: Any) -> bool:
    return inspect.isclass(item) and issubclass(item, Optimizer) and item is not Optimizer


def _refuse_closures(found: type[Optimizer], of: str = "") -> None:
    if issubclass(found, torch.optim.LBFGS):
        raise WorkloadError(f"{_WHERE}: {of}LBFGS evaluates the loss several times a step, which is not supported")
