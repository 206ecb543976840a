"""`lightning`: arguments of `Trainer`, `Fabric` and the DataLoader. Names as of lightning 2.6."""

from __future__ import annotations

from typing import Any

from autotune.export.python import LOADER_KNOBS, docstring, keywords, loader_arguments
from autotune.export.target import Source, Target

_PRECISIONS = {"none": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def _render(source: Source) -> dict[str, str]:
    config = source.config
    accelerator = "cpu" if source.on_cpu else "auto"
    clip = source.spec.training.clip_grad_norm if source.spec else None
    fabric: dict[str, Any] = {"accelerator": accelerator, "devices": 1, "precision": _PRECISIONS[config.amp_dtype]}
    trainer = fabric | {"accumulate_grad_batches": config.grad_accum_steps, "gradient_clip_val": clip}
    text = docstring("Arguments of Lightning's Trainer or Fabric, and of the DataLoader.", source, TARGET)
    text += f"""
TRAINER = dict(
{keywords(trainer)})
FABRIC = dict(
{keywords(fabric)})
# With Fabric: fabric.no_backward_sync(model, enabled=…) on all micro-batches of a window but the last.
GRAD_ACCUM_STEPS = {config.grad_accum_steps}
DATALOADER = dict(
{keywords(loader_arguments(source))})
"""
    return {"lightning_arguments.py": text}


TARGET = Target(name="lightning", render=_render, expresses=LOADER_KNOBS | frozenset({"grad_accum_steps", "amp_dtype"}))
