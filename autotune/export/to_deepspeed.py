"""`deepspeed`: its JSON configuration. Keys of DeepSpeed 0.19.

Never `train_batch_size`: it is micro-batch × accumulation × processes, and DeepSpeed refuses it for any other number of
them. AMP is `torch_autocast`, which keeps weights in fp32 as the trials did; `bf16` and `fp16` would convert them. No
comments: DeepSpeed itself would read them (Hjson), but transformers and Lightning read the same file as JSON.
"""

from __future__ import annotations

from typing import Any

from autotune.export.quoting import json_text
from autotune.export.target import Source, Target

_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}


def _render(source: Source) -> dict[str, str]:
    config = source.config
    values: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": config.micro_batch_size,
        "gradient_accumulation_steps": config.grad_accum_steps,
        "dataloader_drop_last": True,
    }
    if config.amp_dtype != "none":
        values["torch_autocast"] = {"enabled": True, "dtype": _DTYPES[config.amp_dtype]}
    if source.spec is not None and source.spec.training.clip_grad_norm is not None:
        values["gradient_clipping"] = source.spec.training.clip_grad_norm
    return {"ds_config.json": json_text(values)}


def _exceptions(source: Source) -> dict[str, str]:
    mode = source.config.compile
    found = {}
    if mode != "none":
        given = "" if mode == "default" else f'compile_kwargs={{"mode": "{mode}"}}'
        found["compile"] = f"deepspeed compiles in code, not in its file (compile {mode}): engine.compile({given})."
    if source.config.activation_checkpointing:
        found["activation_checkpointing"] = (
            "The activation_checkpointing section of deepspeed's file configures its own functions and switches "
            "nothing on: call model.set_grad_checkpointing() (timm) or model.gradient_checkpointing_enable() "
            "(transformers)."
        )
    return found


def _remarks(_source: Source) -> list[str]:
    return ["train_batch_size is left to deepspeed, which knows the number of processes; do not add it."]


TARGET = Target(
    name="deepspeed",
    gives="DeepSpeed's configuration",
    render=_render,
    expresses=frozenset({"micro_batch_size", "grad_accum_steps", "amp_dtype"}),
    exceptions=_exceptions,
    remarks=_remarks,
)
