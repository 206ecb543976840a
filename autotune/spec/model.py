"""The spec as typed models: every section, field, default and limit. `load.py` makes one from YAML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    StrictStr,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from autotune.config import (
    RANK_KNOBS,
    AmpDtype,
    CompileMode,
    DataParallel,
    Fp32Precision,
    KnobValue,
    MemoryFormat,
)
from autotune.spec.ablation import AblationSpec, ablation_flaws
from autotune.spec.arguments import argument_flaws, value_at
from autotune.spec.constraints import Constraint, parse_constraint
from autotune.spec.custom import CustomKnobs, CustomValues, custom_flaws
from autotune.spec.domains import (
    Choices,
    EffectiveBatchRange,
    IntRange,
    NonNegativeDomain,
    PositiveDomain,
    allows_effective_batch,
    any_batch_fits,
)
from autotune.spec.fields import Budget, Device, FactoryPath, Section, Seed, StudyName, located
from autotune.spec.workload import (
    Augment,
    DataSpec,
    ImageFolderSpec,
    ModelSpec,
    OptimizerSpec,
    SyntheticSpec,
    TimmDataSpec,
    TrainingSpec,
)

__all__ = [
    "AblationSpec",
    "Augment",
    "BaselineSpec",
    "DataSpec",
    "EffectiveBatchRange",
    "ExecutionSpec",
    "FactoryPath",
    "ImageFolderSpec",
    "IntRange",
    "ModelSpec",
    "OptimizerSpec",
    "SearchSpec",
    "Section",
    "Spec",
    "StabilitySpec",
    "StrategySpec",
    "SyntheticSpec",
    "TimmDataSpec",
    "TrainingSpec",
    "allows_effective_batch",
    "constraint_flaws",
    "disagreements",
]


class BaselineSpec(Section):
    """What the speed-up is measured against. A knob that is not given has the value that untuned PyTorch code uses."""

    micro_batch_size: PositiveInt | None = None
    grad_accum_steps: PositiveInt | None = None
    amp_dtype: AmpDtype | None = None
    pin_memory: bool | None = None
    num_workers: NonNegativeInt | None = None
    prefetch_factor: PositiveInt | None = None
    memory_format: MemoryFormat | None = None
    compile: CompileMode | None = None
    fp32_precision: Fp32Precision | None = None
    fused_optimizer: bool | None = None
    activation_checkpointing: bool | None = None
    num_threads: PositiveInt | None = None
    data_parallel: DataParallel | None = None
    bucket_cap_mb: PositiveInt | None = None
    gradient_as_bucket_view: bool | None = None
    static_graph: bool | None = None
    custom: CustomValues = Field(default_factory=dict)
    """Values of the knobs under `search.custom`. Default for each: the spec's value at its `arg`, else its first
    value."""

    @model_serializer(mode="wrap")
    def _keep_custom_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keep `null`, which is a valid value of a custom knob, but which `exclude_none` would drop."""
        written = handler(self)
        return _with_custom(written, dict(self.custom) if "custom" in written else {})


class SearchSpec(Section):
    """The values to search, knob by knob. Default of a knob: every value that applies. One value holds it fixed."""

    micro_batch_size: PositiveDomain | None = None
    """Samples per forward and backward pass on one device."""
    grad_accum_steps: PositiveDomain | None = None
    """Micro-batches per optimizer step; × micro_batch_size = effective batch size."""
    amp_dtype: Choices[AmpDtype] | None = None
    """Automatic mixed precision: its dtype, or `none`."""
    pin_memory: Choices[bool] | None = None
    """Page-locked batches, copied to the accelerator without blocking."""
    num_workers: NonNegativeDomain | None = None
    """DataLoader processes; 0 loads in the training process."""
    prefetch_factor: PositiveDomain | None = None
    """Batches that each worker loads ahead."""
    memory_format: Choices[MemoryFormat] | None = None
    """Layout of 4-D inputs and weights."""
    compile: Choices[CompileMode] | None = None
    """Mode of `torch.compile`, or `none`. Compiling takes from the budget."""
    fp32_precision: Choices[Fp32Precision] | None = None
    """Precision of float32 matrix products and convolutions. CUDA only."""
    fused_optimizer: Choices[bool] | None = None
    """One kernel for the whole optimizer step."""
    activation_checkpointing: Choices[bool] | None = None
    """Recompute activations in the backward pass: less memory, more time."""
    num_threads: PositiveDomain | None = None
    """Intra-op threads of one process. CPU only."""
    data_parallel: Choices[DataParallel] | None = None
    """How several ranks train one model: `ddp`, or `fsdp` (FSDP2's fully_shard)."""
    bucket_cap_mb: PositiveDomain | None = None
    """MiB of gradients that DDP exchanges at a time."""
    gradient_as_bucket_view: Choices[bool] | None = None
    """DDP's gradients live in the buffers that are exchanged."""
    static_graph: Choices[bool] | None = None
    """DDP may rely on every step using the same parameters."""
    custom: CustomKnobs = Field(default_factory=dict)
    """Knobs of your own: `NAME: {values: [a, b], arg: model.args.KEY}`."""

    @model_serializer(mode="wrap")
    def _leave_out_custom(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written = handler(self)
        return _with_custom(written, written.get("custom", {}))

    def values(self, knob: str) -> tuple[Any, ...] | None:
        """The values given for `knob`, in the order given; None if the spec does not name it."""
        if knob in self.custom:
            return tuple(self.custom[knob].values)
        domain = getattr(self, knob)
        return domain.values() if isinstance(domain, IntRange) else domain


def _with_custom(written: dict[str, Any], custom: dict[str, Any]) -> dict[str, Any]:
    """A section for writing: without `custom` if there is none, so that it equals that of older specs."""
    rest = {key: value for key, value in written.items() if key != "custom"}
    return {**rest, "custom": custom} if custom else rest


class StabilitySpec(Section):
    """The limits that the winner must meet to be called stable."""

    loss_tolerance: Annotated[float, Field(gt=0)] = 0.05
    """Largest relative excess of the loss over the baseline's, at equal samples seen."""
    memory_headroom: Annotated[float, Field(ge=0, lt=1)] = 0.10
    """Share of the device's memory that must stay free."""
    max_skipped_steps: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Largest share of optimizer steps that the GradScaler may skip (fp16 only)."""
    soak_steps: NonNegativeInt = 100
    """Optimizer steps that the winner must train in a row without a problem."""


class StrategySpec(Section):
    """How the search proposes configurations; the names are Optuna's."""

    name: Literal["auto", "tpe", "gp", "qmc", "random", "grid", "factory"] = "auto"
    seed: Seed = 0
    factory: FactoryPath | None = None
    """`package.module:callable` that returns an Optuna sampler, such as `optuna.samplers:BruteForceSampler`."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the sampler, except its seed: `{n_startup_trials: 4}` for tpe."""

    @model_validator(mode="before")
    @classmethod
    def _factory_needs_no_name(cls, value: Any) -> Any:
        is_own = isinstance(value, dict) and value.get("factory") is not None
        return {"name": "factory", **value} if is_own else value

    @model_validator(mode="after")
    def _name_and_factory_agree(self) -> Self:
        if self.factory is not None and self.name != "factory":
            raise located(("name",), f"give either a name or a factory, not both; it is {self.name}")
        if self.factory is None and self.name == "factory":
            raise located(("name",), "needs strategy.factory: package.module:callable that returns an Optuna sampler")
        return self


class ExecutionSpec(Section):
    """Where trials run."""

    backend: Literal["local", "ray"] = "local"
    """`local`: this machine · `ray`: a cluster."""
    ranks_per_trial: PositiveInt = 1
    """Processes that train one model together, each on a device of its own."""
    devices: tuple[NonNegativeInt, ...] | None = None
    """Devices of this machine to search on. One trial runs on each at the same time, with its share of the CPU cores;
    a trial with several ranks uses as many devices as ranks. Confirming runs run alone, on the first."""

    address: str | None = None
    """Address of the Ray cluster. Default: `auto`, the cluster of this machine."""
    trials_in_flight: PositiveInt | None = None
    """Most trials at a time on the whole cluster. Default: as many as fit."""
    cpus_per_trial: PositiveInt | None = None
    """CPUs of each trial on the cluster. Default: a node's CPUs divided by its GPUs; all of them if it has no GPU."""
    uneven_nodes: Literal["leave_out", "normalise"] | None = None
    """What to do with nodes whose baseline differs by more than `node_tolerance`: `leave_out` (default), or `normalise`
    all measurements."""
    node_tolerance: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Largest relative difference between nodes. Default: 0.05."""

    @field_validator("devices", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _whole_slots(self) -> Self:
        for name in ("address", "trials_in_flight", "cpus_per_trial", "uneven_nodes", "node_tolerance"):
            if self.backend != "ray" and getattr(self, name) is not None:
                raise located((name,), "needs execution.backend: ray")
        devices = self.devices
        if devices is None:
            return self
        if self.backend == "ray":
            raise located(("devices",), "Ray assigns the devices; leave this out, or use backend: local")
        if not devices or len(set(devices)) < len(devices):
            raise located(("devices",), "name each device once, and at least one: [0, 1]")
        if len(devices) % self.ranks_per_trial:
            message = f"{len(devices)} devices cannot be divided into trials of {self.ranks_per_trial} ranks each"
            raise located(("devices",), message)
        return self


def _as_lines(value: object) -> object:
    lines = () if value is None else value
    return (lines,) if isinstance(lines, str) else tuple(lines) if isinstance(lines, list) else lines


class Spec(Section):
    """What to tune: a model, its data and a wall-clock budget; everything else has a default."""

    name: StudyName = "study"
    """Name of the study folder. Default: the name of the spec file without its ending."""
    model: ModelSpec
    """The network: `timm: resnet18`, or `factory: package.module:callable`."""
    data: DataSpec
    """What it learns from: `image_folder`, `timm`, `synthetic` or `factory`."""
    training: TrainingSpec = TrainingSpec()
    budget: Budget
    """Wall-clock time of the whole command: `90s`, `10m`, `1h30m`."""
    device: Device = "auto"
    """auto | cpu | cuda | cuda:1 | mps | xpu"""
    objective: Literal["throughput"] = "throughput"
    """Samples per second over whole optimizer steps, data loading included."""
    baseline: BaselineSpec = BaselineSpec()
    search: SearchSpec = SearchSpec()
    constraints: Annotated[
        tuple[StrictStr, ...],
        BeforeValidator(_as_lines),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
    ] = ()
    """What a configuration must meet: comparisons of knobs and measures, such as `peak_memory_bytes <= 20GiB`."""
    stability: StabilitySpec = StabilitySpec()
    strategy: StrategySpec = StrategySpec()
    execution: ExecutionSpec = ExecutionSpec()
    ablation: AblationSpec | None = None
    """The techniques that `autotune ablate` measures. Default: accumulation, AMP and pinned memory."""

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        found: Iterator[tuple[tuple[str | int, ...], str]] = chain(
            disagreements(self.training, self.baseline, self.search, self.execution.ranks_per_trial),
            rank_flaws(self),
            argument_flaws(self.search.custom, self.model, self.data, self.training),
            constraint_flaws(self.constraints, self.search),
            ablation_flaws(self.ablation, self.search.custom),
        )
        for path, message in found:
            raise located(path, message)
        return self

    def parsed_constraints(self) -> tuple[Constraint, ...]:
        words = _words_of(self.search)
        return tuple(parse_constraint(text, words) for text in self.constraints)

    def custom_baseline(self) -> dict[str, KnobValue]:
        """The baseline's value of every custom knob: as given, else the spec's value at its argument, else its first
        value."""
        return {name: self._baseline_of(name) for name in self.search.custom}

    def _baseline_of(self, name: str) -> KnobValue:
        knob = self.search.custom[name]
        first: KnobValue = knob.values[0]
        own = self.baseline.custom.get(name, value_at(self, knob.path, first))
        return next((value for value in knob.values if value == own), own)


def constraint_flaws(constraints: Iterable[object], search: SearchSpec) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """(path, message) for each constraint that cannot be read."""
    words = _words_of(search)
    for number, text in enumerate(constraints):
        try:
            if isinstance(text, str):
                parse_constraint(text, words)
        except ValueError as error:
            yield ("constraints", number), str(error)


def _words_of(search: SearchSpec) -> dict[str, tuple[Any, ...]]:
    return {name: tuple(knob.values) for name, knob in search.custom.items()}


def rank_flaws(spec: Spec) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """(path, message) for each setting that needs several ranks if there is only one, and for devices that are listed
    twice."""
    if spec.execution.devices is not None and ":" in spec.device:
        yield ("device",), f"leave out the number, because execution.devices is given: {spec.device.partition(':')[0]}"
    if spec.execution.ranks_per_trial > 1:
        return
    needs = "needs execution.ranks_per_trial: 2 or more"
    if spec.model.sync_batch_norm:
        yield ("model", "sync_batch_norm"), needs
    for knob in RANK_KNOBS:
        if getattr(spec.baseline, knob) is not None:
            yield ("baseline", knob), needs


def _not_divisible(
    wanted: int | EffectiveBatchRange | str, target: str, knob: str, baseline: BaselineSpec, ranks: int
) -> str:
    """`training.effective_batch_size 100 is not divisible by micro_batch_size 32; use 20, 25 or 50`."""
    value = int(getattr(baseline, knob))
    times = f" × {ranks} ranks" if ranks > 1 else ""
    if not isinstance(wanted, int):
        return f"no multiple of {knob} {value}{times} is in training.effective_batch_size {target}"
    clash = f"training.effective_batch_size {wanted} is not divisible by {knob} {value}{times}"
    shares = [each for each in range(1, wanted // ranks + 1) if wanted % (each * ranks) == 0]
    *others, last = sorted(sorted(shares, key=lambda each: abs(math.log(each / value)))[:3]) or [0]
    return f"{clash}; use {', '.join(map(str, others))} or {last}" if others else clash


def disagreements(
    training: TrainingSpec, baseline: BaselineSpec, search: SearchSpec, ranks: int = 1
) -> Iterator[tuple[tuple[str, ...], str]]:
    """(path, message) for each contradiction between sections: batch sizes that no point of the space can have, and
    custom knobs that do not match."""
    wanted = training.effective_batch_size
    target = str(wanted) if isinstance(wanted, int | str) else f"{wanted.min} to {wanted.max}"
    micro, accum = baseline.micro_batch_size, baseline.grad_accum_steps
    times = f" × {ranks} ranks" if ranks > 1 else ""
    own_micros = (micro * ranks,) if micro else None  # the ranks multiply one of the two factors
    own_accums = (accum * (1 if micro else ranks),) if accum else None
    if not any_batch_fits(wanted, own_micros, own_accums):
        if micro and accum:
            product = micro * accum * ranks
            clash = (
                f"{micro} × grad_accum_steps {accum}{times} is {product}, but training.effective_batch_size is {target}"
            )
        else:
            clash = _not_divisible(wanted, target, "micro_batch_size" if micro else "grad_accum_steps", baseline, ranks)
        yield ("baseline", "micro_batch_size" if micro else "grad_accum_steps"), clash
    micros, accums = search.values("micro_batch_size"), search.values("grad_accum_steps")
    if micros is not None:
        micros = tuple(size * ranks for size in micros)
    elif accums is not None:
        accums = tuple(count * ranks for count in accums)
    if not any_batch_fits(wanted, micros, accums) or (isinstance(wanted, int) and wanted % ranks):
        clash = f"no micro_batch_size × grad_accum_steps{times} in `search` gives {target}"
        yield ("training", "effective_batch_size"), clash
    if baseline.prefetch_factor is not None and not baseline.num_workers:
        yield ("baseline", "prefetch_factor"), "needs workers; give baseline.num_workers too, at least 1"
    yield from custom_flaws(search.custom, baseline.custom)
