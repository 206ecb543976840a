"""`lightning`: arguments of `Trainer`, of `Fabric` and of the DataLoader. Names as of lightning 2.6."""

from __future__ import annotations

from typing import Any

from autotune.export.target import Source, Target
from autotune.export.text import LOADER_KNOBS, docstring, introduction, loader_arguments, mapping

_PRECISIONS = {"none": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
_ACCELERATORS = {"cpu": "cpu", "cuda": "gpu", "mps": "mps"}
_USAGE = (
    "Usage: Trainer(**TRAINER, max_epochs=…).fit(module, DataLoader(dataset, **DATALOADER)), or Fabric(**FABRIC) and a "
    "loop of your own, with `fabric.no_backward_sync(model)` around all but the last of GRAD_ACCUM_STEPS micro-batches."
)


def _render(source: Source) -> dict[str, str]:
    config, spec = source.config, source.spec
    fabric: dict[str, Any] = {
        "accelerator": _ACCELERATORS.get(source.device_kind, "auto"),
        "devices": 1,
        "precision": _PRECISIONS[config.amp_dtype],
    }
    trainer = fabric | {"accumulate_grad_batches": config.grad_accum_steps}
    if spec is not None and spec.training.clip_grad_norm is not None:
        trainer |= {"gradient_clip_val": spec.training.clip_grad_norm, "gradient_clip_algorithm": "norm"}
    title = "Arguments of Lightning's Trainer, or of Fabric, and of the DataLoader."
    parts = [
        docstring(title, introduction(source, TARGET, _USAGE)),
        mapping("TRAINER", trainer),
        mapping("FABRIC", fabric) + f"GRAD_ACCUM_STEPS = {config.grad_accum_steps}\n",
        mapping("DATALOADER", loader_arguments(source)),
    ]
    return {"lightning_arguments.py": "\n".join(parts)}


def _exceptions(source: Source) -> dict[str, str]:
    if source.config.amp_dtype == "fp16" and source.on_cpu:
        return {"amp_dtype": "Lightning takes bf16-mixed in place of amp_dtype fp16 on the CPU, and warns."}
    return {}


def _remarks(source: Source) -> list[str]:
    clip = source.spec.training.clip_grad_norm if source.spec else None
    if clip is None:
        return []
    return [f"Fabric does not clip by itself: fabric.clip_gradients(model, optimizer, max_norm={clip:g})."]


TARGET = Target(
    name="lightning",
    render=_render,
    expresses=LOADER_KNOBS | {"grad_accum_steps", "amp_dtype"},
    exceptions=_exceptions,
    remarks=_remarks,
)
