"""`transformers`: a module that makes `TrainingArguments`. Names of transformers 5.23."""

from __future__ import annotations

from typing import Any

from autotune.export.quoting import docstring
from autotune.export.target import Source, Target
from autotune.export.text import LOADER_KNOBS, arguments, introduction, mapping

_USAGE = "Usage: Trainer(model, args=training_arguments('runs', num_train_epochs=3), train_dataset=…)."


def _render(source: Source) -> dict[str, str]:
    title = "TrainingArguments with the settings of a study."
    text = f"""{docstring(title, introduction(source, TARGET, _USAGE))}
from typing import Any

from transformers import TrainingArguments

{mapping("SETTINGS", _settings(source))}

def training_arguments(output_dir: str, **overrides: Any) -> TrainingArguments:
    \"\"\"The settings above and your own arguments, such as the learning rate; yours take precedence.\"\"\"
    return TrainingArguments(output_dir=output_dir, **(SETTINGS | overrides))
"""
    return {"training_arguments.py": text}


def _settings(source: Source) -> dict[str, Any]:
    config = source.config
    values: dict[str, Any] = {
        "per_device_train_batch_size": config.micro_batch_size,
        "gradient_accumulation_steps": config.grad_accum_steps,
        "bf16": config.amp_dtype == "bf16",
        "fp16": config.amp_dtype == "fp16",
        **_loading(source),
    }
    if source.on_cpu:
        values["use_cpu"] = True
    if config.fp32_precision is not None:
        values["tf32"] = config.fp32_precision == "tf32"
    if config.compile != "none":
        values |= {"torch_compile": True, "torch_compile_mode": config.compile}
    if config.activation_checkpointing:
        values["activation_checkpointing"] = True
    return values | _optimization(source)


def _loading(source: Source) -> dict[str, Any]:
    config = source.config
    values: dict[str, Any] = {
        "dataloader_num_workers": config.num_workers,
        "dataloader_pin_memory": config.pin_memory,
        "dataloader_drop_last": True,
    }
    if config.num_workers:
        values["dataloader_persistent_workers"] = True
        if config.prefetch_factor is not None:
            values["dataloader_prefetch_factor"] = config.prefetch_factor
    if config.pin_memory:
        values["accelerator_config"] = {"non_blocking": True}
    return values


def _optimization(source: Source) -> dict[str, Any]:
    """Arguments about the optimization that affect speed; the others are left to the user."""
    if source.spec is None:
        return {}
    clip = source.spec.training.clip_grad_norm
    values: dict[str, Any] = {} if clip is None else {"max_grad_norm": clip}
    if _uses_adamw(source):
        values["optim"] = "adamw_torch_fused" if source.config.fused_optimizer else "adamw_torch"
    return values


def _uses_adamw(source: Source) -> bool:
    return source.spec is not None and source.spec.training.optimizer.name.lower() == "adamw"


def _exceptions(source: Source) -> dict[str, str]:
    config, found = source.config, {}
    if config.fused_optimizer and not _uses_adamw(source):
        found["fused_optimizer"] = (
            "TrainingArguments has fused_optimizer for AdamW only: build yours with fused=True and give it to the "
            "Trainer, optimizers=(optimizer, None)."
        )
    compiles = config.compile != "none" and source.device_kind == "cuda"
    if compiles and config.fp32_precision is None and config.amp_dtype != "fp16":
        found["fp32_precision"] = (
            "The Trainer turns TF32 on for matrix products when it compiles; the trials ran without. tf32=False would "
            "turn it off for convolutions too, where PyTorch has it on (fp32_precision)."
        )
    return found


def _remarks(source: Source) -> list[str]:
    found = ["The Trainer has a linear schedule for the learning rate, unless you give another."]
    if source.spec is None:
        return [_CLIPS, *found]
    optimizer, clip = source.spec.training.optimizer, source.spec.training.clip_grad_norm
    given = ", ".join(arguments(optimizer.args))
    if _uses_adamw(source):
        found.append(
            f"Learning rate, weight decay and further arguments of AdamW are left to you: the Trainer's defaults are "
            f"learning_rate=5e-05 and weight_decay=0.0; the study trained with {given}."
        )
    elif not source.config.fused_optimizer:
        found.append(
            f"The study trained with {optimizer.called}({given}), the Trainer makes AdamW: give it "
            "optimizers=(optimizer, None)."
        )
    norm = f"max_grad_norm={clip:g} is the study's own; yours wins." if clip is not None else None
    return [norm or f"{_CLIPS} The study did not clip: max_grad_norm=0.0.", *found]


_CLIPS = "The Trainer clips gradients at a norm of 1.0, unless max_grad_norm says otherwise."


TARGET = Target(
    name="transformers",
    gives="TrainingArguments",
    render=_render,
    expresses=LOADER_KNOBS
    | {
        "grad_accum_steps",
        "amp_dtype",
        "compile",
        "fp32_precision",
        "fused_optimizer",
        "activation_checkpointing",
    },
    exceptions=_exceptions,
    remarks=_remarks,
)
