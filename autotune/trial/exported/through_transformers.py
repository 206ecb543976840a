"""Hugging Face's Trainer, with the exported TrainingArguments."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from autotune.trial.exported import Stopwatch, Workload

_ENDLESS = 10_000_000


class _WithLoss(nn.Module):
    """A model in the form that the Trainer takes: it computes its own loss."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.inner = workload.model
        self._loss = workload.loss

    def forward(self, batch: Any) -> dict[str, Tensor]:
        return {"loss": self._loss(self.inner, batch)}


def train(workload: Workload, stopwatch: Stopwatch) -> None:
    class Laps(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            control.should_training_stop = stopwatch.lap()
            return control

    # Clip as the study does. If the study does not clip, the export keeps the Trainer's own clipping.
    clip = {} if workload.clip_grad_norm else {"max_grad_norm": 0.0}
    quiet = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
    constant = torch.optim.lr_scheduler.LambdaLR(workload.optimizer, lambda _step: 1.0)
    with tempfile.TemporaryDirectory() as folder:
        make = workload.exported("training_arguments.py")["training_arguments"]
        Trainer(
            model=_WithLoss(workload),
            args=make(folder, max_steps=_ENDLESS, **clip, **quiet),
            train_dataset=workload.dataset,
            data_collator=lambda samples: {"batch": workload.collate(samples)},
            callbacks=[Laps()],
            optimizers=(workload.optimizer, constant),
        ).train()
