"""From spec and facts to the space: which knobs apply here, with which values, around which baseline."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from autotune.config import KnobValue, TrainConfig
from autotune.errors import SpecError
from autotune.knobs import KNOBS, Knob, KnobContext
from autotune.records import Facts
from autotune.search.space import Dimension, Dropped, Space
from autotune.spec import Spec
from autotune.spec.model import EffectiveBatchRange, allows_effective_batch

_UNTUNED_MICRO = 32


def build_space(spec: Spec, facts: Facts) -> Space:
    """The space of `spec` on this machine. Raises SpecError when no point meets the spec."""
    baseline = _baseline(KnobContext(spec=spec, facts=facts))
    whose = ", the baseline's" if spec.training.effective_batch_size == "baseline" else ""
    spec = _with_its_batch(spec, baseline) if whose else spec
    context = KnobContext(spec=spec, facts=facts)
    searched: dict[str, tuple[KnobValue, ...]] = {}
    held_back: dict[str, tuple[KnobValue, ...]] = {}
    dropped: list[Dropped] = []
    for knob in KNOBS:
        searched[knob.name], refused = _applicable(knob, context, baseline)
        dropped += refused
        own = baseline.value(knob.name)
        held = tuple(value for value in knob.held_back(context) if value in searched[knob.name] and value != own)
        held_back |= {knob.name: held} if held else {}
    searched |= {name: tuple(knob.values) for name, knob in spec.search.custom.items()}
    accum_by_micro = _batch_plan(spec, searched, facts.workload.dataset_samples, whose)
    wanted = f"effective_batch_size {_shown(spec.training.effective_batch_size)}{whose}"
    dropped = _with_unfit(dropped, spec, context, searched, wanted)
    searched["micro_batch_size"] = tuple(accum_by_micro)
    if isinstance(spec.training.effective_batch_size, int):
        searched["grad_accum_steps"] = (baseline.grad_accum_steps,)
        dropped.append(Dropped(knob="grad_accum_steps", value=None, reason=f"follows from {wanted}"))
    accum_by_micro.setdefault(baseline.micro_batch_size, (baseline.grad_accum_steps,))
    dimensions = _dimensions(searched, baseline)
    varied = {dimension.knob for dimension in dimensions}
    space = Space(
        baseline=baseline,
        dimensions=dimensions,
        held={name: values[0] for name, values in searched.items() if name not in varied},
        accum_by_micro=accum_by_micro,
        dropped=tuple(dropped),
        allowed=tuple(constraint for constraint in spec.parsed_constraints() if constraint.on_knobs),
        held_back=held_back,
    )
    if space.is_baseline_alone:
        given = "; ".join(constraint.text for constraint in space.allowed)
        raise SpecError(f"constraints: only the baseline meets them here; loosen one of: {given}")
    return space


def _with_unfit(
    dropped: list[Dropped], spec: Spec, context: KnobContext, searched: dict[str, tuple[KnobValue, ...]], wanted: str
) -> list[Dropped]:
    """`dropped` with the micro-batches that cannot give the effective batch size, however large the data set is. One
    entry for all those that nobody has asked for."""
    name = "micro_batch_size"
    knob = next(knob for knob in KNOBS if knob.name == name)
    micros = [micro for micro in _wanted(knob, context) if isinstance(micro, int)]
    fitting = _batch_plan(spec, {**searched, name: tuple(micros)}, None, "")
    unfit = [micro for micro in micros if micro not in fitting]
    kept = [each for each in dropped if each.knob != name or each.value not in unfit]
    reason = f"cannot give {wanted}"
    if context.listed(name):
        return kept + [Dropped(knob=name, value=micro, reason=reason) for micro in unfit]
    several = ", ".join(map(str, unfit))
    return [*kept, Dropped(knob=name, value=None, reason=f"{several} {reason}")] if unfit else kept


def _with_its_batch(spec: Spec, baseline: TrainConfig) -> Spec:
    """`spec` with the baseline's effective batch size in place of the word for it."""
    training = spec.training.model_copy(update={"effective_batch_size": baseline.effective_batch_size})
    return spec.model_copy(update={"training": training})


def _applicable(knob: Knob, context: KnobContext, baseline: TrainConfig) -> tuple[tuple[KnobValue, ...], list[Dropped]]:
    """The values of `knob` that apply, and what dropped out; never empty: the baseline's value stands in."""
    wanted = _wanted(knob, context)
    reasons = {value: knob.refusal(value, context) for value in wanted}
    values = tuple(value for value in wanted if reasons[value] is None)
    refused = [(value, reason) for value, reason in reasons.items() if reason is not None]
    if not refused:
        return values, []
    if len(values) <= 1 and len({reason for _, reason in refused}) == 1:
        dropped = [Dropped(knob=knob.name, value=None, reason=refused[0][1])]
    else:
        dropped = [Dropped(knob=knob.name, value=value, reason=reason) for value, reason in refused]
    own = baseline.value(knob.name)
    return values or (own if own is not None else knob.untuned_value(context),), dropped


def _wanted(knob: Knob, context: KnobContext) -> tuple[KnobValue, ...]:
    return context.spec.search.values(knob.name) or knob.domain(context)


def _dimensions(searched: dict[str, tuple[KnobValue, ...]], baseline: TrainConfig) -> tuple[Dimension, ...]:
    """A dimension for each knob with a choice; the baseline's own value belongs to it, so that it is a point too."""
    idle = {knob.name for knob in KNOBS if not knob.matters(baseline)}
    dimensions = []
    for name, values in searched.items():
        own = baseline.value(name)
        outside = own not in values and name not in idle
        ordered = _in_order((own, *values)) if outside else values
        if len(ordered) > 1:
            dimensions.append(Dimension(knob=name, values=ordered, searched=values))
    return tuple(dimensions)


def _in_order(values: Iterable[KnobValue]) -> tuple[KnobValue, ...]:
    """Numbers by size; anything else as given, the baseline's value first."""
    listed = list(values)
    numbers = [value for value in listed if isinstance(value, int | float) and not isinstance(value, bool)]
    return tuple(sorted(numbers)) if len(numbers) == len(listed) else tuple(listed)


def _batch_plan(
    spec: Spec, searched: dict[str, tuple[KnobValue, ...]], samples: int | None, whose: str
) -> dict[int, tuple[int, ...]]:
    """For each micro-batch size the accumulation counts that meet the effective batch size and whose optimizer step the
    data set of `samples` can feed; sizes with none drop out. `whose`: the effective batch size is, for the error."""
    wanted = spec.training.effective_batch_size
    micro_sizes = [value for value in searched["micro_batch_size"] if isinstance(value, int)]
    counts = [value for value in searched["grad_accum_steps"] if isinstance(value, int)]
    listed = spec.search.grad_accum_steps is not None
    plan: dict[int, tuple[int, ...]] = {}
    for micro in micro_sizes:
        at_once = micro * spec.execution.ranks_per_trial
        if isinstance(wanted, int) and not listed:
            fitting: tuple[int, ...] = (wanted // at_once,) if wanted % at_once == 0 else ()
        else:
            fitting = tuple(count for count in counts if allows_effective_batch(wanted, at_once * count))
        fitting = tuple(count for count in fitting if samples is None or at_once * count <= samples)
        if fitting:
            plan[micro] = fitting
    if not plan:
        raise SpecError(
            f"search: no micro_batch_size of {micro_sizes} with a grad_accum_steps of {counts} gives "
            f"training.effective_batch_size {_shown(wanted)}{whose}; widen one of the three"
            + (", or let `free` search it" if whose else "")
        )
    return plan


def _baseline(context: KnobContext) -> TrainConfig:
    """The spec's baseline; what it does not name is what an untuned PyTorch user gets."""
    given = context.spec.baseline.model_dump(exclude_none=True, exclude={"custom"})
    untuned = {knob.name: knob.untuned_value(context) for knob in KNOBS}
    custom = context.spec.custom_baseline()
    config = TrainConfig(world_size=context.ranks).with_values(
        {**untuned, **given, **_baseline_batch(context), **custom}
    )
    insisting = dataclasses.replace(context, insisting=True)
    for knob in KNOBS:
        refusal = knob.refusal(given[knob.name], insisting) if knob.name in given else None
        if refusal:
            raise SpecError(f"baseline.{knob.name}: {given[knob.name]} does not apply here: {refusal}")
    idle: dict[str, KnobValue] = {knob.name: None for knob in KNOBS if not knob.matters(config)}
    config = config.replace(**idle)
    samples = context.facts.workload.dataset_samples
    if samples is not None and samples < config.effective_batch_size:
        raise SpecError(
            f"data: the data set has {samples} samples, fewer than the {config.effective_batch_size} of one optimizer "
            "step; give more data, or a smaller baseline.micro_batch_size or training.effective_batch_size"
        )
    return config


def _baseline_batch(context: KnobContext) -> dict[str, int]:
    """Micro-batch 32, no accumulation beyond what the effective batch size asks; what the spec gives goes first."""
    baseline, wanted = context.spec.baseline, context.spec.training.effective_batch_size
    smallest, largest = _bounds(wanted)
    given, ranks = baseline.micro_batch_size, context.ranks
    samples = context.facts.workload.dataset_samples
    most = min(_UNTUNED_MICRO, samples // ranks if samples else _UNTUNED_MICRO)
    for micro in [given] if given else [*range(most, 0, -1), *range(most + 1, largest + 1)]:
        accum = baseline.grad_accum_steps or -(-smallest // (micro * ranks))
        if allows_effective_batch(wanted, micro * accum * ranks):
            return {"micro_batch_size": micro, "grad_accum_steps": accum}
    factors = {"micro_batch_size": given, "grad_accum_steps": baseline.grad_accum_steps}
    stated = " and ".join(f"{name} {value}" for name, value in factors.items() if value)
    raise SpecError(f"baseline: {stated} cannot meet training.effective_batch_size {_shown(wanted)}")


def _bounds(wanted: int | str | EffectiveBatchRange) -> tuple[int, int]:
    if isinstance(wanted, EffectiveBatchRange):
        return wanted.min, wanted.max
    return (wanted, wanted) if isinstance(wanted, int) else (1, _UNTUNED_MICRO)


def _shown(wanted: int | str | EffectiveBatchRange) -> str:
    return f"{wanted.min} to {wanted.max}" if isinstance(wanted, EffectiveBatchRange) else str(wanted)
