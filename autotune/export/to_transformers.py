"""`transformers`: a module that makes `TrainingArguments`. Names as of transformers 5."""

from __future__ import annotations

from typing import Any

from autotune.export.python import docstring, keywords
from autotune.export.target import Source, Target


def _render(source: Source) -> dict[str, str]:
    text = docstring("Hugging Face Trainer arguments.", source, TARGET)
    text += f"""
from typing import Any

from transformers import TrainingArguments

SETTINGS: dict[str, Any] = dict(
{keywords(_settings(source))})


def training_arguments(output_dir: str, **others: Any) -> TrainingArguments:
    \"\"\"The settings above with your own, such as learning_rate; yours win.\"\"\"
    return TrainingArguments(output_dir=output_dir, **{{**SETTINGS, **others}})
"""
    return {"training_arguments.py": text}


def _settings(source: Source) -> dict[str, Any]:
    config = source.config
    values: dict[str, Any] = {
        "per_device_train_batch_size": config.micro_batch_size,
        "gradient_accumulation_steps": config.grad_accum_steps,
        "bf16": config.amp_dtype == "bf16",
        "fp16": config.amp_dtype == "fp16",
        "dataloader_num_workers": config.num_workers,
        "dataloader_pin_memory": config.pin_memory,
        "dataloader_drop_last": True,
    }
    if config.num_workers:
        values["dataloader_persistent_workers"] = True
        if config.prefetch_factor is not None:
            values["dataloader_prefetch_factor"] = config.prefetch_factor
    if config.fp32_precision is not None:
        values["tf32"] = config.fp32_precision == "tf32"
    if config.compile != "none":
        values |= {"torch_compile": True, "torch_compile_mode": config.compile}
    if config.activation_checkpointing:
        values["activation_checkpointing"] = True
    if _sets_fused(source):
        values["optim"] = "adamw_torch_fused" if config.fused_optimizer else "adamw_torch"
    clip = source.spec.training.clip_grad_norm if source.spec else None
    if source.spec is not None:
        values["max_grad_norm"] = clip or 0.0
    return values | ({"use_cpu": True} if source.on_cpu else {})


def _sets_fused(source: Source) -> bool:
    return source.spec is not None and source.spec.training.optimizer.name.lower() == "adamw"


def _advice(source: Source) -> list[str]:
    found = []
    if not _sets_fused(source):
        fused = source.config.fused_optimizer
        found.append(f"the Trainer builds an AdamW of its own; give it yours with optimizers=(…), fused={fused}.")
    return found


TARGET = Target(
    name="transformers",
    render=_render,
    expresses=frozenset(
        {
            "micro_batch_size",
            "grad_accum_steps",
            "amp_dtype",
            "num_workers",
            "pin_memory",
            "prefetch_factor",
            "fp32_precision",
            "compile",
            "activation_checkpointing",
            "fused_optimizer",
        }
    ),
    advice=_advice,
)
