"""Lightning's Trainer, with the exported arguments for it and for the DataLoader."""

from __future__ import annotations

import tempfile
from typing import Any

import lightning
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from autotune.trial.exported import Stopwatch, Workload


def train(workload: Workload, stopwatch: Stopwatch) -> None:
    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.inner = workload.model
            self._laps = 0

        def training_step(self, batch: Any, _number: int) -> Tensor:
            return workload.loss(self.inner, batch)

        def configure_optimizers(self) -> Optimizer:
            if workload.config.amp_dtype != "none" and workload.clip_grad_norm is not None:
                return workload.optimizer_without_fusing()  # as the export says: Lightning refuses it
            return workload.optimizer

        def on_train_batch_end(self, *_: Any) -> None:
            if self.global_step > self._laps:
                self._laps = self.global_step
                self.trainer.should_stop = stopwatch.lap()

    names = workload.exported("lightning_arguments.py")
    loader = DataLoader(workload.dataset, collate_fn=workload.collate, **names["DATALOADER"])
    silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    quiet: dict[str, Any] = dict.fromkeys(silent, False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(**names["TRAINER"], **quiet, max_epochs=-1, default_root_dir=folder)
        trainer.fit(Module(), loader)
