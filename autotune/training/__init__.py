"""How one step is trained: the code that trials and users' own training code share. Needs only torch.

Apply a `TrainConfig` to a training loop in this order: `apply_to_process`, `apply_to_model`, `distribute` if several
processes train together, `build_dataloader`, then one `TrainStep` call per micro-batch. A setting that PyTorch would
accept and ignore raises `SettingHasNoEffect`.
"""

from autotune.training.apply import (
    activation_checkpointing_refusal,
    apply_to_model,
    apply_to_process,
    fused_optimizer_refusal,
)
from autotune.training.batch import batch_size, input_shape, move_batch, structure
from autotune.training.criterion import Criterion, loss_of
from autotune.training.device import device_name
from autotune.training.errors import MeanOfMeans, SettingHasNoEffect
from autotune.training.loader import build_dataloader, collate_of, loader_kwargs
from autotune.training.observer import StepMark, StepObserver
from autotune.training.precision import autocast_context, make_grad_scaler, require_autocast, set_fp32_precision
from autotune.training.step import LossFn, StepOutput, TrainStep
from autotune.training.together import distribute, world_size

__all__ = [
    "Criterion",
    "LossFn",
    "MeanOfMeans",
    "SettingHasNoEffect",
    "StepMark",
    "StepObserver",
    "StepOutput",
    "TrainStep",
    "activation_checkpointing_refusal",
    "apply_to_model",
    "apply_to_process",
    "autocast_context",
    "batch_size",
    "build_dataloader",
    "collate_of",
    "device_name",
    "distribute",
    "fused_optimizer_refusal",
    "input_shape",
    "loader_kwargs",
    "loss_of",
    "make_grad_scaler",
    "move_batch",
    "require_autocast",
    "set_fp32_precision",
    "structure",
    "world_size",
]
