"""The model that a spec describes: a timm name, or the user's own factory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from autotune.errors import WorkloadError
from autotune.spec.workload import ModelSpec
from autotune.workload.factory import load_callable
from autotune.workload.problems import blaming, suggestion

BuildModel = Callable[[int | None], nn.Module]
"""Builds the model on the CPU, for a data set with that number of classes (None: unknown)."""
_ELSEWHERE = ("hf-hub:", "hf_hub:", "local-dir:")
"""Prefixes of names that timm takes from the hub or a folder, not from its own list."""


def prepare_model(spec: ModelSpec) -> BuildModel:
    """Import what the model needs and check that it exists, without building it. Raises WorkloadError."""
    if spec.timm is not None:
        return _timm_builder(spec.timm, spec.args)
    return _factory_builder(str(spec.factory), spec.args)


def _timm_builder(name: str, args: dict[str, Any]) -> BuildModel:
    import timm  # takes two seconds, which a workload with its own model does not need

    if not name.startswith(_ELSEWHERE) and not timm.is_model(name):
        raise WorkloadError(f"model.timm: unknown model '{name}'{suggestion(name, timm.list_models())}")

    def build(classes: int | None) -> nn.Module:
        arguments = {"pretrained": False} | ({} if classes is None else {"num_classes": classes}) | args
        with blaming(f"model.timm: {name}"):
            model: nn.Module = timm.create_model(name, **arguments)
        return require_outputs(model, classes)

    return build


def _factory_builder(name: str, args: dict[str, Any]) -> BuildModel:
    factory = load_callable("model.factory", name)

    def build(classes: int | None) -> nn.Module:
        with blaming(f"model.factory: {name}"):
            model = factory(**args)
        if not isinstance(model, nn.Module):
            raise WorkloadError(f"model.factory: {name} returned a {type(model).__name__}, not an nn.Module")
        return require_outputs(model, classes)

    return build


def require_outputs(model: nn.Module, classes: int | None) -> nn.Module:
    """`model`, after a check that it has enough outputs for the data set's classes, if both numbers are known."""
    outputs = getattr(model, "num_classes", None)
    if isinstance(outputs, int) and classes is not None and outputs < classes:
        raise WorkloadError(f"model: {outputs} outputs (its num_classes), but the data set has {classes} classes")
    return model
