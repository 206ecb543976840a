"""`lightning`: arguments of `Trainer`, of `Fabric` and of the DataLoader. Names of lightning 2.6."""

from __future__ import annotations

from typing import Any

from autotune.export.quoting import docstring, literal
from autotune.export.target import Source, Target
from autotune.export.text import LOADER_KNOBS, introduction, loader_arguments, mapping

_PRECISIONS = {"none": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
_ACCELERATORS = {"cpu": "cpu", "cuda": "gpu", "mps": "mps"}
_USAGE = (
    "Usage: Trainer(**TRAINER, max_epochs=…).fit(module, DataLoader(dataset, **DATALOADER)), or Fabric(**FABRIC) and a "
    "loop of your own, with `fabric.no_backward_sync(model)` around all but the last of GRAD_ACCUM_STEPS micro-batches."
)


def _render(source: Source) -> dict[str, str]:
    config, clip = source.config, _clip_grad_norm(source)
    fabric: dict[str, Any] = {
        "accelerator": _ACCELERATORS.get(source.device_kind, "auto"),
        "devices": 1,
        "precision": _PRECISIONS[config.amp_dtype],
    }
    trainer = fabric | {"accumulate_grad_batches": config.grad_accum_steps}
    if clip is not None:
        trainer |= {"gradient_clip_val": clip, "gradient_clip_algorithm": "norm"}
    title = "Arguments of Lightning's Trainer, or of Fabric, and of the DataLoader."
    parts = [
        docstring(title, introduction(source, TARGET, _USAGE)),
        mapping("TRAINER", trainer),
        mapping("FABRIC", fabric) + f"GRAD_ACCUM_STEPS = {literal(config.grad_accum_steps)}\n",
        mapping("DATALOADER", loader_arguments(source)),
    ]
    return {"lightning_arguments.py": "\n".join(parts)}


def _exceptions(source: Source) -> dict[str, str]:
    config, exceptions = source.config, {}
    if config.amp_dtype == "fp16" and source.on_cpu:
        exceptions["amp_dtype"] = "Lightning takes bf16-mixed in place of amp_dtype fp16 on the CPU, and warns."
    if config.fused_optimizer and config.amp_dtype != "none" and _clip_grad_norm(source) is not None:
        exceptions["fused_optimizer"] = (
            "Lightning refuses to clip gradients under mixed precision where the fused_optimizer is on: leave "
            "fused=True out, and expect a little less."
        )
    return exceptions


def _clip_grad_norm(source: Source) -> float | None:
    return source.spec.training.clip_grad_norm if source.spec is not None else None


def _remarks(source: Source) -> list[str]:
    clip = _clip_grad_norm(source)
    if clip is None:
        return []
    return [f"Fabric does not clip by itself: fabric.clip_gradients(model, optimizer, max_norm={clip:g})."]


TARGET = Target(
    name="lightning",
    gives="Trainer and DataLoader arguments",
    render=_render,
    expresses=LOADER_KNOBS | {"grad_accum_steps", "amp_dtype"},
    exceptions=_exceptions,
    remarks=_remarks,
)
