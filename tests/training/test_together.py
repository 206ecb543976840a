"""Two processes under DistributedDataParallel: the gradient is that of one process with all the data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.nn.parallel import DistributedDataParallel
from toy_training import CPU, Batch, cut, draw, mean_loss, small_model

from autotune.config import TrainConfig
from autotune.training import TrainStep

PROCESSES = 2
MICRO, ACCUMULATED = 4, 3


def counted_loss(model: torch.nn.Module, batch: Batch) -> Any:
    """Summed over the samples of two classes alone: how many there are differs from batch to batch."""
    kept = batch[1] < 2
    return mean_loss(model, (batch[0][kept], batch[1][kept])) * int(kept.sum()), int(kept.sum())


LOSSES = {"mean": mean_loss, "counted": counted_loss}


class Case(NamedTuple):
    loss: str
    micro_batches: int
    """Micro-batches of each process, until the window ends."""

    def data(self) -> Batch:
        return draw(PROCESSES * MICRO * self.micro_batches)

    def part(self, rank: int) -> list[Batch]:
        batches = cut(self.data(), [MICRO] * (PROCESSES * self.micro_batches))
        return batches[rank * self.micro_batches :][: self.micro_batches]


CASES = [Case(loss, micro_batches) for loss in LOSSES for micro_batches in (ACCUMULATED, ACCUMULATED - 1)]


def _train(case: Case, rank: int) -> dict[str, Any]:
    model = DistributedDataParallel(small_model())
    averages: list[bool] = []
    model.register_forward_pre_hook(lambda *_: averages.append(model.require_backward_grad_sync))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    config = TrainConfig(micro_batch_size=MICRO, grad_accum_steps=ACCUMULATED)
    step = TrainStep(model, optimizer, LOSSES[case.loss], config, device=CPU)
    for batch in case.part(rank):
        step(batch)
    step.finish()
    return {"weights": model.module.state_dict(), "averages": averages}


def _train_all(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    torch.set_num_threads(1)
    torch.save([_train(case, rank) for case in CASES], f"{folder}/{rank}.pt")
    dist.barrier()
    # Gloo's threads may still let go of tensors while the interpreter is taken down, and abort the process for it.
    os._exit(0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Case, dict[str, Any]]]:
    """What each process ended with in each case: of one pair of processes, because to start them takes seconds."""
    folder: Path = tmp_path_factory.mktemp("together")
    multiprocessing.spawn(_train_all, (str(folder),), nprocs=PROCESSES)
    return [dict(zip(CASES, torch.load(folder / f"{rank}.pt"), strict=True)) for rank in range(PROCESSES)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.micro_batches}-{case.loss}")
def test_the_gradient_is_that_of_all_the_data(trained: list[dict[Case, dict[str, Any]]], case: Case) -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    TrainStep(model, optimizer, LOSSES[case.loss], TrainConfig(micro_batch_size=64), device=CPU)(case.data())
    for of_process in trained:
        for name, weight in model.state_dict().items():
            torch.testing.assert_close(of_process[case]["weights"][name], weight, rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.micro_batches}-{case.loss}")
def test_gradients_are_exchanged_once_a_window(trained: list[dict[Case, dict[str, Any]]], case: Case) -> None:
    """With its last backward pass; where the data ends before, with none of them."""
    for of_process in trained:
        assert of_process[case]["averages"] == [place + 1 == ACCUMULATED for place in range(case.micro_batches)]
