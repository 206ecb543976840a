"""What the exported script and `autotune.load` are worth beside a trial of the same configuration: their loops,
alternating in one process.

    python benchmarks/exported.py STUDY [ROUNDS]

`autotune verify --export torch` asks the same across fresh processes; two of those differ by more than the loops may.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from side_by_side import SEGMENT_S, Segment, compare_ways, trial_segment
from torch import nn

import autotune
from autotune.export import export, read_source
from autotune.training import apply_to_model, apply_to_process
from autotune.trial.device import resolve_device, synchronise
from autotune.workload import Prepared, prepare


def main() -> None:
    study, rounds = sys.argv[1], int((sys.argv[2:3] or ["60"])[0])
    source = read_source(study)
    if source.spec is None:
        raise SystemExit("give the study's folder")
    workload = prepare(source.spec, source.folder or Path.cwd())
    device = resolve_device(source.spec.device)
    tuned = autotune.load(study, device=str(device))
    apply_to_process(tuned.config, device)
    model = apply_to_model(workload.model(), tuned.config, device).train()
    ways = {
        "exported script": exported(export(source, "torch").files["train.py"], device, tuned.effective_batch_size),
        "autotune.load": loaded(tuned, workload),
        "trial": trial_segment(
            model, optimizer_of(workload, model, tuned), workload.loss_fn(), workload.dataset(), tuned.config, device
        ),
    }
    about = {"study": tuned.emitted.study, "device": str(device), "torch": torch.__version__}
    for way in ("exported script", "autotune.load"):
        compare_ways({way: ways[way], "trial": ways["trial"]}, rounds, about)


def optimizer_of(workload: Prepared, model: nn.Module, tuned: autotune.TunedConfig) -> torch.optim.Optimizer:
    return workload.optimizer(model, fused=tuned.config.fused_optimizer)


def loaded(tuned: autotune.TunedConfig, workload: Prepared) -> Segment:
    """A user's own loop around the tuned step and loader."""
    model = tuned.apply(workload.model()).train()
    step = tuned.train_step(model, optimizer_of(workload, model, tuned), workload.loss_fn())
    batches = itertools.chain.from_iterable(itertools.repeat(tuned.dataloader(workload.dataset(), seed=0)))

    def optimizer_step() -> None:
        while not step(next(batches)).optimizer_stepped:
            pass

    return timed(optimizer_step, tuned.device, tuned.effective_batch_size)


def exported(script: str, device: torch.device, samples: int) -> Segment:
    """The script's own step, taken from its `main` as that begins to train."""

    class Reached(Exception):
        pass

    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(script)
        file.flush()
        found = importlib.util.spec_from_file_location("exported", file.name)
        if found is None or found.loader is None:
            raise SystemExit("the exported script cannot be imported")
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)

    def stop(step: Callable[[], Any], *_limits: float) -> NoReturn:
        raise Reached(step)

    arguments, sys.argv, module.train = sys.argv, ["train.py"], stop  # type: ignore[attr-defined]
    try:
        module.main()
    except Reached as reached:
        return timed(reached.args[0], device, samples)
    finally:
        sys.argv = arguments
    raise SystemExit("the exported script does not train")


def timed(optimizer_step: Callable[[], Any], device: torch.device, samples: int) -> Segment:
    def segment() -> float:
        synchronise(device)
        steps, began = 0, time.perf_counter()
        while time.perf_counter() - began < SEGMENT_S:
            optimizer_step()
            steps += 1
        synchronise(device)
        return steps * samples / (time.perf_counter() - began)

    return segment


if __name__ == "__main__":
    main()
