"""`timm`: the flags of timm's `train.py`, as a shell script. Argument names as of timm 1.0.31."""

from __future__ import annotations

import shlex

from autotune.config import TrainConfig
from autotune.export.notes import comment, header, notes
from autotune.export.target import Source, Target

_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}


def _render(source: Source) -> dict[str, str]:
    arguments = _flags(source.config)
    if source.on_cpu:
        arguments += ["--device", "cpu", "--no-prefetcher"]
    model = source.spec.model.timm if source.spec else None
    if model is not None:
        arguments = ["--model", model, *arguments]
    command = " \\\n  ".join(["python train.py", *_lines(arguments), '"$@"'])
    usage = "Usage: sh train_timm.sh --data-dir FOLDER --lr RATE …"
    return {"train_timm.sh": "#!/bin/sh\n" + comment([*header(source), *notes(source, TARGET), usage]) + command + "\n"}


def _flags(config: TrainConfig) -> list[str]:
    flags = ["--batch-size", str(config.micro_batch_size), "--grad-accum-steps", str(config.grad_accum_steps)]
    flags += ["--workers", str(config.num_workers)]
    if config.amp_dtype != "none":
        flags += ["--amp", "--amp-dtype", _DTYPES[config.amp_dtype]]
    if config.pin_memory:
        flags += ["--pin-mem"]
    if config.memory_format == "channels_last":
        flags += ["--channels-last"]
    if config.compile != "none":
        flags += ["--torchcompile"] + ([] if config.compile == "default" else ["--torchcompile-mode", config.compile])
    if config.activation_checkpointing:
        flags += ["--grad-checkpointing"]
    return flags


def _lines(arguments: list[str]) -> list[str]:
    """A flag with its value on each."""
    lines: list[str] = []
    for argument in arguments:
        if argument.startswith("--") or not lines:
            lines.append(shlex.quote(argument))
        else:
            lines[-1] += f" {shlex.quote(argument)}"
    return lines


def _advice(source: Source) -> list[str]:
    return ["timm's own loader collates and normalises on the device with its prefetcher; throughput may differ by it."]


TARGET = Target(
    name="timm",
    render=_render,
    expresses=frozenset(
        {
            "micro_batch_size",
            "grad_accum_steps",
            "num_workers",
            "amp_dtype",
            "pin_memory",
            "memory_format",
            "compile",
            "activation_checkpointing",
        }
    ),
    advice=_advice,
)
