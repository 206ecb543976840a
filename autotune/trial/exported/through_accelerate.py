"""A training loop with Hugging Face's Accelerator, as in its documentation, with the exported Accelerator and
DataLoader."""

from __future__ import annotations

from torch.utils.data import DataLoader

from autotune.trial.exported import Stopwatch, Workload


def train(workload: Workload, stopwatch: Stopwatch) -> None:
    names = workload.exported("accelerator.py")
    accelerator = names["make_accelerator"]()
    loader = DataLoader(workload.dataset, collate_fn=workload.collate, **names["DATALOADER"])
    model, optimizer, loader = accelerator.prepare(workload.model, workload.optimizer, loader)
    while True:
        for batch in loader:
            with accelerator.accumulate(model):
                accelerator.backward(workload.loss(model, batch))
                if accelerator.sync_gradients and workload.clip_grad_norm is not None:
                    accelerator.clip_grad_norm_(model.parameters(), workload.clip_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients and stopwatch.lap():
                return
