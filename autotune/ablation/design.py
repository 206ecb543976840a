"""The design: which techniques apply here, at which two levels, and the configuration of every combination of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from autotune.config import KnobValue, TrainConfig
from autotune.errors import SpecError
from autotune.knobs import KNOBS, KnobContext
from autotune.records import Factor, Facts
from autotune.search import build_space
from autotune.search.space import Dropped
from autotune.spec import Spec
from autotune.stats import Cell, cells

_LABELS = {"grad_accum_steps": "GA", "micro_batch_size": "micro-batch", "amp_dtype": "AMP", "pin_memory": "pinning"}
_NAMED_BY_VALUE = ("memory_format", "fp32_precision")
_ACCUMULATION = (4, 2, 3, 5, 7)
"""Micro-batches per step if the baseline has one: the first number that divides its batch."""
_PYTORCHS_PREFETCH = 2

Levels = tuple[KnobValue, KnobValue]


@dataclass(frozen=True, kw_only=True)
class Design:
    """The full factorial of `factors`; all cells have the same effective batch size."""

    factors: tuple[Factor, ...]
    dropped: tuple[Dropped, ...]
    configs: Mapping[Cell, TrainConfig]

    @property
    def plain(self) -> Cell:
        return (False,) * len(self.factors)

    @property
    def full(self) -> Cell:
        return (True,) * len(self.factors)

    @property
    def effective_batch_size(self) -> int:
        return self.configs[self.plain].effective_batch_size

    def techniques(self, cell: Iterable[bool]) -> tuple[str, ...]:
        """Labels of what is switched on."""
        return tuple(factor.label for factor, on in zip(self.factors, cell, strict=True) if on)

    def name(self, cell: Cell) -> str:
        """`plain`, or `GA + AMP`."""
        return " + ".join(self.techniques(cell)) or "plain"

    def to_dict(self) -> dict[str, Any]:
        """What must be equal when an ablation is resumed."""
        return {self.name(cell): config.to_dict() for cell, config in self.configs.items()}


def plan(spec: Spec, facts: Facts) -> Design:
    """The design of `spec` on this machine: around the baseline, the techniques of `ablation.factors`, or accumulation,
    AMP and pinned memory. Raises SpecError where none of them applies, or a batch cannot be split as asked."""
    context = KnobContext(spec=spec, facts=facts, insisting=True)
    baseline = build_space(spec, facts).baseline
    named = spec.ablation.factors.named() if spec.ablation else {}
    wanted, dropped = (named, []) if named else _default_factors(context, baseline)
    levels, refused = _applicable(wanted, context, baseline)
    dropped += refused
    if not levels:
        raise SpecError(f"ablation: none of the techniques applies here: {'; '.join(map(str, dropped))}")
    configs = {
        cell: _at(baseline, {knob: pair[on] for (knob, pair), on in zip(levels.items(), cell, strict=True)})
        for cell in cells(len(levels))
    }
    if len(set(configs.values())) < len(configs):
        raise SpecError(
            "ablation.factors: prefetch_factor has no effect without workers; set baseline.num_workers to 1 or more"
        )
    return Design(
        factors=tuple(Factor(knob=knob, label=_label(knob, on), off=off, on=on) for knob, (off, on) in levels.items()),
        dropped=tuple(dropped),
        configs=configs,
    )


def _default_factors(context: KnobContext, baseline: TrainConfig) -> tuple[dict[str, Levels], list[Dropped]]:
    """Accumulation × AMP × pinned memory, as the paper has them."""
    levels: dict[str, Levels] = {}
    dropped = []
    size, count = baseline.effective_batch_size, baseline.grad_accum_steps
    counts = [count] if count > 1 else [number for number in _ACCUMULATION if size % number == 0]
    if counts:
        levels["grad_accum_steps"] = (1, counts[0])
    else:
        dropped.append(_whole("grad_accum_steps", f"an effective batch of {size} cannot be split evenly"))
    device = context.facts.device
    dtype = next((dtype for dtype in ("bf16", "fp16") if dtype in device.amp_dtypes), None)
    if dtype:
        levels["amp_dtype"] = ("none", dtype)
    else:
        dropped.append(_whole("amp_dtype", f"{device.name} has no fast bf16 or fp16"))
    return {**levels, "pin_memory": (False, True)}, dropped


def _applicable(
    wanted: Mapping[str, Levels], context: KnobContext, baseline: TrainConfig
) -> tuple[dict[str, Levels], list[Dropped]]:
    """The factors whose two levels apply and have an effect here; and the others, with the reason."""
    levels, dropped = dict(wanted), []
    for knob in KNOBS:
        reasons = (knob.refusal(level, context) for level in levels.get(knob.name, ()))
        if reason := next(filter(None, reasons), None):
            dropped.append(_whole(knob.name, reason))
            del levels[knob.name]
    full = _at(baseline, {knob: on for knob, (_, on) in levels.items()})
    for knob in KNOBS:
        if knob.name in levels and not knob.matters(full):
            dropped.append(_whole(knob.name, "no effect without workers; add them with --set baseline.num_workers=2"))
            del levels[knob.name]
    return levels, dropped


def _at(baseline: TrainConfig, levels: Mapping[str, KnobValue]) -> TrainConfig:
    """`baseline` at these levels, at its own effective batch size, with a value exactly for the knobs that matter."""
    config = baseline.with_values({**levels, **_batch(baseline.effective_batch_size, levels)})
    if config.num_workers and config.prefetch_factor is None:
        config = config.replace(prefetch_factor=_PYTORCHS_PREFETCH)
    return config.with_values({knob.name: None for knob in KNOBS if not knob.matters(config)})


def _batch(size: int, levels: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
    """How `size` samples are split into micro-batches, if one of the factors determines it."""
    for knob, other in (("grad_accum_steps", "micro_batch_size"), ("micro_batch_size", "grad_accum_steps")):
        count = levels.get(knob)
        if isinstance(count, int):
            if size % count:
                raise SpecError(f"ablation.factors.{knob}: {count} does not divide {size}, the effective batch size")
            return {other: size // count}
    return {}


def _whole(knob: str, reason: str) -> Dropped:
    return Dropped(knob=knob, value=None, reason=reason)


def _label(knob: str, on: KnobValue) -> str:
    return _LABELS.get(knob) or (str(on) if knob in _NAMED_BY_VALUE else knob.replace("_", " "))
