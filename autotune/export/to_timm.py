"""`timm`: the flags of timm's `train.py`, as a shell script. Names of timm 1.0.28; 1.0.31 has the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from autotune.config import TrainConfig
from autotune.export.quoting import comment, word
from autotune.export.target import Source, Target
from autotune.export.text import introduction
from autotune.spec import Spec

_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}
_OPTIMIZERS = {"sgd": "momentum", "adam": "adam", "adamw": "adamw"}
"""Name in specs → `--opt`. timm's `sgd` is SGD with Nesterov momentum."""
_WEIGHT_DECAY = {"sgd": 0.0, "adam": 0.0, "adamw": 0.01}
"""PyTorch's default, used if the spec does not name it; train.py has another default."""
_USAGE = "Usage, next to timm's train.py: sh train_timm.sh --data-dir DIR [more of its flags]. Later flags win."

Flags = list[list[str]]
"""One line of the script each."""


def _render(source: Source) -> dict[str, str]:
    spec, config = source.spec, source.config
    lines = [*(_training(spec) if spec else []), *_settings(source), *_loading(config, source.on_cpu)]
    command = " \\\n    ".join(["exec python train.py", *map(" ".join, lines), '"$@"'])
    threads = f"export OMP_NUM_THREADS={word(config.num_threads)}\n" if config.num_threads is not None else ""
    return {"train_timm.sh": f"#!/bin/sh\n{comment(introduction(source, TARGET, _USAGE))}{threads}{command}\n"}


def _settings(source: Source) -> Flags:
    config = source.config
    lines = [["--device", word(source.device_kind)]]
    lines.append(["-b", word(config.micro_batch_size), "--grad-accum-steps", word(config.grad_accum_steps)])
    if config.amp_dtype != "none":
        lines.append(["--amp", "--amp-dtype", _DTYPES[config.amp_dtype]])
    if config.memory_format == "channels_last":
        lines.append(["--channels-last"])
    if config.compile != "none":
        mode = [] if config.compile == "default" else ["--torchcompile-mode", word(config.compile)]
        lines.append(["--torchcompile", "inductor", *mode])
    if config.activation_checkpointing:
        lines.append(["--grad-checkpointing"])
    options = _optimizer_options(source.spec) | ({"fused": True} if config.fused_optimizer else {})
    return [*lines, _pairs("--opt-kwargs", options)] if options else lines


def _loading(config: TrainConfig, on_cpu: bool) -> Flags:
    # Only the prefetcher copies without blocking, which is the purpose of pinning.
    how = ["--pin-mem"] if config.pin_memory and not on_cpu else ["--no-prefetcher"]
    return [["-j", word(config.num_workers), *how]]


def _training(spec: Spec) -> Flags:
    """What the study trained: model, data, loss and optimizer, as far as train.py knows them."""
    return [line for line in (*_model(spec), _data(spec), *_optimizer(spec)) if line]


def _model(spec: Spec) -> Flags:
    if spec.model.timm is None:
        return []
    given = dict(spec.model.args)
    line = ["--model", word(spec.model.timm)]
    classes = given.pop("num_classes", spec.data.synthetic.classes if spec.data.synthetic else None)
    if classes is not None:
        line += ["--num-classes", word(classes)]
    if given.pop("pretrained", False):
        line.append("--pretrained")
    return [line, *([_pairs("--model-kwargs", given)] if given else [])]


def _data(spec: Spec) -> list[str]:
    section = spec.data.image_folder or spec.data.timm or spec.data.synthetic
    if section is None:
        return []
    line = (
        ["--dataset", word(spec.data.timm.name), "--train-split", word(spec.data.timm.split)] if spec.data.timm else []
    )
    return [*line, "--img-size", word(section.image_size), *(["--no-aug"] if section.augment == "none" else [])]


def _optimizer(spec: Spec) -> Flags:
    optimizer, clip = spec.training.optimizer, spec.training.clip_grad_norm
    name = optimizer.name.lower()
    lines = [["--clip-grad", _number(clip)]] if clip is not None else []
    if spec.training.loss == "cross_entropy":
        lines.append(["--smoothing", "0"])
    if name not in _OPTIMIZERS:
        return lines
    given = optimizer.args
    line = ["--opt", _OPTIMIZERS[name], "--lr", _number(optimizer.lr)]
    line += ["--weight-decay", _number(given.get("weight_decay", _WEIGHT_DECAY[name]))]
    if name == "sgd":
        line += ["--momentum", _number(given.get("momentum", 0.0))]
    return [line, *lines]


def _optimizer_options(spec: Spec | None) -> dict[str, Any]:
    """Options of the optimizer without a flag of their own."""
    if spec is None or spec.training.optimizer.name.lower() not in _OPTIMIZERS:
        return {}
    own = {"lr", "weight_decay", "momentum"}
    return {name: value for name, value in spec.training.optimizer.args.items() if name not in own}


def _pairs(flag: str, values: Mapping[str, Any]) -> list[str]:
    return [flag, *(word(f"{name}={value}") for name, value in values.items())]


def _number(value: Any) -> str:
    return word(f"{value:g}" if isinstance(value, int | float) else value)


def _exceptions(source: Source) -> dict[str, str]:
    config, found = source.config, {}
    if config.prefetch_factor is not None:
        found["prefetch_factor"] = f"train.py loads 2 batches ahead, not prefetch_factor {config.prefetch_factor}."
    if source.device_kind == "cuda" and config.fp32_precision != "tf32":
        asked = f"with {config.fp32_precision}" if config.fp32_precision else "with PyTorch's default"
        found["fp32_precision"] = (
            "train.py always turns TF32 on for matrix products (fp32_precision); the trials ran "
            f"{asked}. Change torch.backends.cuda.matmul.allow_tf32 in your copy of it."
        )
    elif config.fp32_precision == "tf32":
        found["fp32_precision"] = "train.py turns TF32 on by itself (fp32_precision: tf32)."
    if config.amp_dtype == "fp16" and source.device_kind != "cuda":
        found["amp_dtype"] = "train.py scales the loss on CUDA only: amp_dtype fp16 loses small gradients here."
    return found


def _customs(source: Source) -> Iterable[str]:
    """Arguments of timm's models, and of optimizers that train.py knows by the same name."""
    if source.spec is None:
        return []
    known = {"model": source.spec.model.timm is not None}
    known["training"] = source.spec.training.optimizer.name.lower() in _OPTIMIZERS
    knobs = {name: source.spec.search.custom[name].path for name, _ in source.config.custom}
    return [name for name, path in knobs.items() if known.get(path[0]) and len(path) == len(("section", "args", "key"))]


def _remarks(source: Source) -> list[str]:
    found = ["train.py has its own learning-rate schedule, warm-up epochs and other defaults."]
    if source.config.pin_memory:
        found.append("Its prefetcher normalises images on the device, which the trials did while loading.")
    if source.spec is None:
        return [*found, "Without --lr, train.py scales --lr-base with the effective batch size."]
    if source.spec.model.timm is None:
        found.append(f"train.py builds timm's models only; register {source.spec.model.factory} with timm first.")
    if source.spec.training.optimizer.name.lower() not in _OPTIMIZERS:
        found.append(f"--opt and --lr are left to you: the study trained with {source.spec.training.optimizer.called}.")
    if source.spec.data.factory is not None:
        found.append(f"train.py reads data sets that timm knows only, not {source.spec.data.factory}.")
    if source.spec.training.loss != "cross_entropy":
        found.append(f"train.py has its own losses, not {source.spec.training.loss}.")
    return found


TARGET = Target(
    name="timm",
    gives="flags of timm's train.py",
    render=_render,
    expresses=frozenset(
        {
            "micro_batch_size",
            "grad_accum_steps",
            "amp_dtype",
            "pin_memory",
            "num_workers",
            "memory_format",
            "compile",
            "fused_optimizer",
            "activation_checkpointing",
            "num_threads",
        }
    ),
    exceptions=_exceptions,
    customs=lambda source: tuple(_customs(source)),
    remarks=_remarks,
)
