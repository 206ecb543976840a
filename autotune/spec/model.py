"""The spec as typed models: every section, field, default and limit. `load.py` makes one from YAML."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from autotune.config import AmpDtype, CompileMode, Fp32Precision, MemoryFormat
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
    "disagreements",
]


class BaselineSpec(Section):
    """What the speed-up is measured against; a silent knob is what an untuned PyTorch user gets."""

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


class SearchSpec(Section):
    """The values to search, knob by knob; a silent knob takes every value that applies, one value holds it fixed."""

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
    """Of float32 matrix products and convolutions. CUDA only."""
    fused_optimizer: Choices[bool] | None = None
    """One kernel for the whole optimizer step."""
    activation_checkpointing: Choices[bool] | None = None
    """Recompute activations in the backward pass: less memory, more time."""
    num_threads: PositiveDomain | None = None
    """Intra-op threads. CPU only."""

    def values(self, knob: str) -> tuple[Any, ...] | None:
        """The values given for `knob`, in the order given; None when the spec is silent on it."""
        domain = getattr(self, knob)
        return domain.values() if isinstance(domain, IntRange) else domain


class StabilitySpec(Section):
    """What the winner must hold to be called stable."""

    loss_tolerance: Annotated[float, Field(gt=0)] = 0.05
    """Largest relative excess of the loss over the baseline's, at equal samples seen."""
    memory_headroom: Annotated[float, Field(ge=0, lt=1)] = 0.10
    """Share of the device's memory that must stay free."""
    max_skipped_steps: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Largest share of optimizer steps that the GradScaler may skip (fp16 only)."""
    soak_steps: NonNegativeInt = 100
    """Optimizer steps that the winner must train without a fault, in one go."""


class StrategySpec(Section):
    """How the search proposes configurations; the names are Optuna's."""

    name: Literal["auto", "tpe", "gp", "random", "grid"] = "auto"
    seed: Seed = 0


class ExecutionSpec(Section):
    """Where trials run."""

    backend: Literal["local"] = "local"


class Spec(Section):
    """What to tune: a model, its data and a wall-clock budget; everything else has a default."""

    name: StudyName = "study"
    """Names the study folder; silent: the spec file's stem."""
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
    stability: StabilitySpec = StabilitySpec()
    strategy: StrategySpec = StrategySpec()
    execution: ExecutionSpec = ExecutionSpec()

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        for path, message in disagreements(self.training, self.baseline, self.search):
            raise located(path, message)
        return self


def disagreements(
    training: TrainingSpec, baseline: BaselineSpec, search: SearchSpec
) -> Iterator[tuple[tuple[str, ...], str]]:
    """What no section gets wrong alone, as (path, message): batch sizes that no point of the space can have."""
    wanted = training.effective_batch_size
    target = str(wanted) if isinstance(wanted, int | str) else f"{wanted.min} to {wanted.max}"
    micro, accum = baseline.micro_batch_size, baseline.grad_accum_steps
    if not any_batch_fits(wanted, (micro,) if micro else None, (accum,) if accum else None):
        if micro and accum:
            clash = (
                f"{micro} × grad_accum_steps {accum} is {micro * accum}, but training.effective_batch_size is {target}"
            )
        else:
            clash = f"no multiple of {micro or accum} is {target}, the training.effective_batch_size"
        yield ("baseline", "micro_batch_size" if micro else "grad_accum_steps"), clash
    if not any_batch_fits(wanted, search.values("micro_batch_size"), search.values("grad_accum_steps")):
        clash = f"no micro_batch_size × grad_accum_steps that `search` allows is {target}"
        yield ("training", "effective_batch_size"), clash
    if baseline.prefetch_factor is not None and not baseline.num_workers:
        yield ("baseline", "prefetch_factor"), "needs workers; give baseline.num_workers too, at least 1"
