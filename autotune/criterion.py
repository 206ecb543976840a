"""Distinguishes a criterion, called with outputs and targets, from a loss function, called with the model and a batch.
Does not import torch, because `autotune.tune` checks its arguments before any process has imported it."""

from __future__ import annotations

import inspect

_HOMES = ("torch.nn.modules.loss", "torch.nn.functional", "timm.loss")
_TARGETS = ("target", "targets", "label", "labels", "y", "y_true")
_WRITE = "write a function `def loss_fn(model, batch)` that returns `criterion(model(inputs), targets)`"


def criterion_flaw(found: object, else_give: str = _WRITE) -> str | None:
    """The message if `found` is a criterion although a loss function is needed; `else_give` says what to do.

    None if `found` is not a criterion.
    """
    return (
        None
        if not is_criterion(found)
        else f"{_name(found)} is a criterion, called with outputs and targets; {else_give}"
    )


def is_criterion(found: object) -> bool:
    """One of PyTorch's or timm's own, or a module whose second argument is a target by its name."""
    kind = found if isinstance(found, type) else type(found)
    if any(base.__module__.startswith(_HOMES) for base in kind.__mro__):
        return True
    if (getattr(found, "__module__", None) or "").startswith(_HOMES):
        return True
    forward = getattr(kind, "forward", None)
    return forward is not None and _second_argument(forward) in _TARGETS


def _second_argument(forward: object) -> str | None:
    try:
        names = list(inspect.signature(forward).parameters)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return names[2] if len(names) > 2 else None  # `self` comes first


def _name(found: object) -> str:
    return str(getattr(found, "__qualname__", type(found).__qualname__))
