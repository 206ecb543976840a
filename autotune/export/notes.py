"""What every export says of itself: where it comes from, what was measured, what its target leaves to the user."""

from __future__ import annotations

from autotune.config import KnobValue, TrainConfig
from autotune.emitted import Emitted, Interval
from autotune.export.target import Source, Target

_BY_HAND = {
    "micro_batch_size": "DataLoader(batch_size={})",
    "grad_accum_steps": "accumulate the gradients of {} micro-batches for each optimizer step",
    "amp_dtype": "run the forward pass under torch.autocast with {}",
    "pin_memory": "DataLoader(pin_memory={}), and copy batches with non_blocking=True",
    "num_workers": "DataLoader(num_workers={}, persistent_workers=True)",
    "prefetch_factor": "DataLoader(prefetch_factor={})",
    "memory_format": "model.to(memory_format=torch.{}), and the images of every batch too",
    "compile": "model.compile(), in mode {}",
    "fp32_precision": "set torch.backends.cuda.matmul.fp32_precision and that of cudnn.conv to {}",
    "fused_optimizer": "build the optimizer with fused={}",
    "activation_checkpointing": "call model.set_grad_checkpointing() or gradient_checkpointing_enable() ({})",
    "num_threads": "call torch.set_num_threads({}) before the first operator",
}
_ADAPTIVE = ("adam", "rmsprop", "adagrad", "adadelta", "adafactor")


def header(source: Source) -> list[str]:
    """For the top of a file: study, figures, effective batch; a line each."""
    emitted = source.emitted
    environment = emitted.environment
    rate = f"{emitted.best.samples_per_s:,.0f} samples/s{_between(emitted.best.samples_per_s_ci95, '{:,.0f}')}"
    gain = f"{emitted.speedup:.2f} times the baseline's{_between(emitted.speedup_ci95, '{:.2f}')}"
    return [
        f"Exported by autotune from study {emitted.study}; verdict: {emitted.verdict}.",
        f"Measured: {rate}, {gain},",
        f"on {environment.get('device', 'an unknown device')} with PyTorch {environment.get('torch', '?')}.",
        _effective_batch(source),
    ]


def notes(source: Source, target: Target) -> list[str]:
    """What a user of the export has to know or to do."""
    found = []
    if source.emitted.verdict != "stable":
        found.append("UNCONFIRMED: the search's budget ended before the checks did; search on before you rely on it.")
    found += [
        f"{target.name} does not set {knob}: {_by_hand(knob, value)}."
        for knob, value in settings(source.config).items()
        if knob not in target.expresses and value != _DEFAULTS.get(knob, _NO_DEFAULT)
    ]
    return [*found, *target.advice(source)]


def settings(config: TrainConfig) -> dict[str, KnobValue]:
    """Built-in knobs and custom ones, by name."""
    return {name: value for name, value in config.to_dict().items() if name != "custom"} | dict(config.custom)


def comment(lines: list[str]) -> str:
    """As comments of Python, shell and YAML."""
    return "".join(f"# {line}\n" for line in lines)


_NO_DEFAULT = object()
_DEFAULTS: dict[str, object] = {**TrainConfig().to_dict(), "micro_batch_size": _NO_DEFAULT}


def _by_hand(knob: str, value: KnobValue) -> str:
    return _BY_HAND.get(knob, f"{knob} is your own; give your code {{}}").format(value)


def _effective_batch(source: Source) -> str:
    config, baseline = source.config, source.emitted.baseline.config
    ours, theirs = config.effective_batch_size, baseline.effective_batch_size
    size = f"Effective batch size {ours}: {config.micro_batch_size} × {config.grad_accum_steps} on each device"
    if ours == theirs:
        return f"{size}, as before: the learning rate stays."
    return f"{size}, instead of {theirs}: {_learning_rate(source, ours / theirs)}."


def _learning_rate(source: Source, factor: float) -> str:
    linear, root = f"{factor:g} (linear rule)", f"{factor**0.5:.2g} (square root rule)"
    if source.spec is None:
        return f"scale the learning rate of SGD by {linear}, of Adam by {root}"
    name = source.spec.training.optimizer.name.lower()
    return f"scale the learning rate by {root if name.startswith(_ADAPTIVE) else linear}"


def _between(interval: Interval | None, form: str) -> str:
    return "" if interval is None else f" ({form.format(interval[0])} to {form.format(interval[1])})"


def worth(emitted: Emitted) -> dict[str, object]:
    """The figures, for targets that are plain data."""
    return {
        "samples_per_s": emitted.best.samples_per_s,
        "speedup": emitted.speedup,
        "verdict": emitted.verdict,
    }
