"""What every export says about itself: where it comes from, what was measured, what its target leaves to the user."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from autotune.config import KNOB_NAMES, KnobValue, TrainConfig
from autotune.export.quoting import literal
from autotune.export.target import Source, Target

_STABLE = "stable"
_UNTUNED = {name: TrainConfig().value(name) for name in KNOB_NAMES}


def promise(source: Source) -> tuple[str, ...]:
    """Study, measurements, effective batch size: one sentence each."""
    emitted, config = source.emitted, source.config
    version = emitted.environment.get("autotune")
    tool = f"autotune {version}" if version else "autotune"
    gain = f"{emitted.speedup:.2f} times the baseline's {_rate(emitted.baseline.samples_per_s)}"
    if config == emitted.baseline.config:
        gain = "with the baseline settings: nothing tested was reliably faster"
    elif emitted.speedup_ci95:
        gain += " ({:.2f} to {:.2f})".format(*emitted.speedup_ci95)
    measured = f"{_rate(emitted.best.samples_per_s)} samples/s"
    if emitted.best.samples_per_s_ci95:
        measured += f" (95 % interval {' to '.join(map(_rate, emitted.best.samples_per_s_ci95))})"
    device = emitted.environment.get("device", "an unknown device")
    return (
        f"Exported by {tool} from study {emitted.study}; verdict: {emitted.verdict}.",
        f"Measured: {measured}, {gain}, on {device} with PyTorch {emitted.environment.get('torch', 'unknown')}.",
        f"Effective batch size: {config.effective_batch_size}, that is {config.micro_batch_size} × "
        f"{config.grad_accum_steps}{_on_devices(config)}",
    )


def _on_devices(config: TrainConfig) -> str:
    if config.world_size == 1:
        return ", on one device; on several it grows with their number."
    return f" × {config.world_size} processes that train together; start as many, with torchrun or your launcher."


def notes(source: Source, target: Target) -> tuple[str, ...]:
    """What to know or to do, the most important first."""
    found = [_on_verdict(source), _on_learning_rate(source), *_left_over(source, target), _on_batches(source, target)]
    found += target.remarks(source)
    return tuple(note for note in found if note)


def settings(config: TrainConfig) -> dict[str, KnobValue]:
    """Built-in knobs and custom ones, by name."""
    return {name: value for name, value in config.to_dict().items() if name != "custom"} | dict(config.custom)


def _on_verdict(source: Source) -> str | None:
    if source.emitted.verdict == _STABLE:
        return None
    return (
        f"{source.emitted.verdict.upper()}: not every test of this configuration was done and passed; `autotune show "
        f"{source.emitted.study}` says why. Run the same search with a larger --budget before you rely on it."
    )


def _on_learning_rate(source: Source) -> str | None:
    change = source.emitted.batch_change
    lr = source.spec.training.optimizer.known_lr if source.spec else None
    given = "" if lr is None else f" The study used learning rate {lr:g} in both."
    return change and f"{change}{given}"


def _on_batches(source: Source, target: Target) -> str | None:
    collate = source.spec.data.collate if source.spec else None
    if collate is None or target.collates:
        return None
    return f"The study made batches with {collate}: give it to your DataLoader as collate_fn."


def _left_over(source: Source, target: Target) -> Iterator[str]:
    """One sentence for each knob that differs from PyTorch's default and is not in the files."""
    exceptions, config = target.exceptions(source), source.config
    for knob in KNOB_NAMES:
        value = getattr(config, knob)
        if knob in exceptions:
            yield exceptions[knob]
        elif knob not in target.expresses and value != _UNTUNED[knob]:
            yield f"{target.name} does not set {knob}: {_BY_HAND[knob](value)}."
    for knob, value in config.custom:
        if knob not in target.customs(source):
            yield f"{target.name} does not set {knob}: {_custom_by_hand(source, knob, value)}."


def _custom_by_hand(source: Source, knob: str, value: KnobValue) -> str:
    own = source.spec.search.custom.get(knob) if source.spec else None
    place = f"{own.arg}, a knob of the study's own," if own else "a knob of the study's own, it"
    return f"{place} is {literal(value)}"


_BY_HAND: dict[str, Callable[[KnobValue], str]] = {
    "micro_batch_size": lambda value: f"DataLoader(batch_size={value})",
    "grad_accum_steps": lambda value: f"step the optimizer once in {value} micro-batches, each loss divided by {value}",
    "amp_dtype": lambda value: (
        "run forward pass and loss inside torch.autocast(device, torch."
        + (
            "float16), and call backward on the loss scaled by a torch.amp.GradScaler"
            if value == "fp16"
            else "bfloat16)"
        )
    ),
    "pin_memory": lambda _value: "DataLoader(pin_memory=True), and copy batches with non_blocking=True",
    "num_workers": lambda value: f"DataLoader(num_workers={value}, persistent_workers=True)",
    "prefetch_factor": lambda value: f"DataLoader(prefetch_factor={value})",
    "memory_format": lambda value: (
        f"model.to(memory_format=torch.{value}), and images.contiguous(memory_format=torch.{value}) of every batch"
    ),
    "compile": lambda value: f"model.compile({'' if value == 'default' else f'mode={literal(value)}'})",
    "fp32_precision": lambda value: (
        f"set fp32_precision of torch.backends.cuda.matmul and of torch.backends.cudnn.conv to {literal(value)}"
    ),
    "fused_optimizer": lambda _value: "build the optimizer with fused=True",
    "activation_checkpointing": lambda _value: (
        "call model.set_grad_checkpointing() (timm) or model.gradient_checkpointing_enable() (transformers)"
    ),
    "num_threads": lambda value: f"call torch.set_num_threads({value}) before the first operator",
    "data_parallel": lambda value: (
        "torch.nn.parallel.DistributedDataParallel(model)"
        if value == "ddp"
        else "torch.distributed.fsdp.fully_shard(block) for each block, then for the model"
    ),
    "bucket_cap_mb": lambda value: f"DistributedDataParallel(bucket_cap_mb={value})",
    "gradient_as_bucket_view": lambda value: f"DistributedDataParallel(gradient_as_bucket_view={value})",
    "static_graph": lambda value: f"DistributedDataParallel(static_graph={value})",
}
"""For each knob: how to set it in plain PyTorch if a target does not."""


def _rate(samples_per_s: float) -> str:
    return f"{samples_per_s:,.0f}" if samples_per_s >= 100 else f"{samples_per_s:.3g}"
