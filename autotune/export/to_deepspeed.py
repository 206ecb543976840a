"""`deepspeed`: its JSON. Keys as of DeepSpeed 0.19.

Never `train_batch_size`: it is micro-batch × accumulation × processes, and wrong on any other number of them. AMP is
`torch_autocast`, which keeps fp32 weights as the trials do; `bf16` and `fp16` would not.
"""

from __future__ import annotations

import json
from typing import Any

from autotune.export.target import Source, Target

_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}


def _render(source: Source) -> dict[str, str]:
    config = source.config
    values: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": config.micro_batch_size,
        "gradient_accumulation_steps": config.grad_accum_steps,
    }
    if config.amp_dtype != "none":
        values["torch_autocast"] = {"enabled": True, "dtype": _DTYPES[config.amp_dtype]}
    clip = source.spec.training.clip_grad_norm if source.spec else None
    if clip is not None:
        values["gradient_clipping"] = clip
    return {"ds_config.json": json.dumps(values, indent=2) + "\n"}


TARGET = Target(
    name="deepspeed",
    render=_render,
    expresses=frozenset({"micro_batch_size", "grad_accum_steps", "amp_dtype"}),
)
