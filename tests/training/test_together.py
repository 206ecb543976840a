"""Two processes under DistributedDataParallel: the gradient is that of one process with all the data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.nn.parallel import DistributedDataParallel
from toy_training import CPU, Batch, cut, draw, mean_loss, small_model

from autotune.config import TrainConfig
from autotune.training import TrainStep

pytestmark = pytest.mark.slow

MICRO, ACCUMULATED = 4, 3


def counted_loss(model: torch.nn.Module, batch: Batch) -> Any:
    """Summed over the samples of two classes alone: how many there are differs from batch to batch."""
    kept = batch[1] < 2
    return mean_loss(model, (batch[0][kept], batch[1][kept])) * int(kept.sum()), int(kept.sum())


LOSSES = {"mean": mean_loss, "counted": counted_loss}


def _train(rank: int, folder: str, loss: str, batches: list[list[Batch]]) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.set_num_threads(1)
    model = DistributedDataParallel(small_model())
    averages: list[bool] = []
    model.register_forward_pre_hook(lambda *_: averages.append(model.require_backward_grad_sync))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    config = TrainConfig(micro_batch_size=MICRO, grad_accum_steps=ACCUMULATED)
    step = TrainStep(model, optimizer, LOSSES[loss], config, device=CPU)
    for batch in batches[rank]:
        step(batch)
    step.finish()
    if rank == 0:
        torch.save({"weights": model.module.state_dict(), "averages": averages}, f"{folder}/result.pt")
    dist.barrier()
    # Gloo's threads may still let go of tensors while the interpreter is taken down, and abort the process for it.
    os._exit(0)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("micro_batches", [ACCUMULATED, ACCUMULATED - 1])
def test_the_gradient_is_that_of_all_the_data(tmp_path: Path, loss: str, micro_batches: int) -> None:
    everything = draw(2 * MICRO * micro_batches)
    parts = cut(everything, [MICRO] * (2 * micro_batches))
    multiprocessing.spawn(_train, (str(tmp_path), loss, [parts[:micro_batches], parts[micro_batches:]]), nprocs=2)
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    TrainStep(model, optimizer, LOSSES[loss], TrainConfig(micro_batch_size=64), device=CPU)(everything)
    result = torch.load(tmp_path / "result.pt")
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(result["weights"][name], weight, rtol=0, atol=1e-9)
    assert result["averages"] == [place + 1 == ACCUMULATED for place in range(micro_batches)], "once a window"
