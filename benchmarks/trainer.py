"""What a study's configuration is worth inside Hugging Face's Trainer, beside what the study said.

    python benchmarks/trainer.py STUDY [ROUNDS] [SECONDS]

Alternates fresh processes that train the study's workload in the Trainer, with the exported arguments and with those of
the study's baseline, and trials of the same two. What the export's notes leave to its user, threads, layout, optimizer,
is done as they say.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from autotune.config import TrainConfig
from autotune.execution import LocalBackend
from autotune.export import Source, export, read_source
from autotune.records import TrialRequest
from autotune.stats import compare, throughput
from autotune.store import StudyFolder, read_resolved_spec

WARM_UP_STEPS = 3
SIDES = ("emitted", "baseline")


def main() -> None:
    if sys.argv[1] == "--run":
        print(json.dumps({"samples_per_s": run(read_source(sys.argv[2]), sys.argv[3], float(sys.argv[4]))}))
        return
    study, rounds, seconds = sys.argv[1], int((sys.argv[2:3] or ["8"])[0]), float((sys.argv[3:4] or ["6"])[0])
    folder, source, shuffle = StudyFolder(Path(study)), read_source(study), random.Random(0)
    backend = LocalBackend(read_resolved_spec(folder), source.folder or Path.cwd())
    try:
        ways = {
            **{("Trainer", side): partial(in_the_trainer, study, side, seconds) for side in SIDES},
            **{("trials", side): partial(in_a_trial, backend, config_of(source, side), seconds) for side in SIDES},
        }
        backend.facts(120.0)
        gains: dict[str, list[float]] = {"Trainer": [], "trials": []}
        for number in range(rounds):
            rates = {way: ways[way](number) for way in shuffle.sample(list(ways), len(ways))}
            for method, ratios in gains.items():
                ratios.append(math.log(rates[method, "emitted"] / rates[method, "baseline"]))
            print(
                f"round {number + 1}:", {f"{m}, {side}": round(rate) for (m, side), rate in rates.items()}, flush=True
            )
    finally:
        backend.close()
    for method, ratios in gains.items():
        print(f"{method}: {in_words(ratios)} the baseline; the study said {source.emitted.speedup:.2f}×")
    pairs = zip(gains["Trainer"], gains["trials"], strict=True)
    print(f"gain in the Trainer ÷ gain in trials: {in_words([ours - theirs for ours, theirs in pairs])}")


def in_words(logs: list[float]) -> str:
    found = compare(logs).ratio
    within = f" ({found.interval.low:.2f} to {found.interval.high:.2f})" if found.interval else ""
    return f"{found.value:.2f}×{within}"


def config_of(source: Source, side: str) -> TrainConfig:
    return source.config if side == "emitted" else source.emitted.baseline.config


def in_a_trial(backend: LocalBackend, config: TrainConfig, seconds: float, seed: int) -> float:
    request = TrialRequest(config=config, seed=seed, time_limit_s=seconds, target_relative_error=0.0)
    return throughput(backend.run(request, deadline_s=120.0, on_event=lambda _event: None).blocks)


def in_the_trainer(study: str, side: str, seconds: float, _seed: int) -> float:
    command = [sys.executable, __file__, "--run", study, side, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["samples_per_s"])


def run(source: Source, side: str, seconds: float) -> float:
    """Samples per second of one process."""
    if side == "baseline":
        source = dataclasses.replace(source, emitted=dataclasses.replace(source.emitted, best=source.emitted.baseline))
    import torch
    from transformers import Trainer, TrainerCallback

    from autotune.workload import prepare

    config, spec = source.config, source.spec
    if spec is None:
        raise SystemExit("give the study's folder")
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    workload = prepare(spec, source.folder or Path.cwd())
    model = Classifier.around(workload.model(), workload.loss_fn())
    if config.memory_format == "channels_last":
        model.to(memory_format=torch.channels_last)

    class Stopwatch(TrainerCallback):
        began_s = ended_s = 0.0
        steps = 0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            now = time.perf_counter()
            if state.global_step <= WARM_UP_STEPS:
                self.began_s = now
            self.ended_s, self.steps = now, state.global_step - WARM_UP_STEPS
            control.should_training_stop = state.global_step > WARM_UP_STEPS and now - self.began_s > seconds
            return control

    names: dict[str, Any] = {}
    exec(export(source, "transformers").files["training_arguments.py"], names)
    arguments = names["training_arguments"](
        "/tmp", max_steps=100_000, report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True
    )
    watch = Stopwatch()
    optimizer = workload.optimizer(model.parameters(), fused=config.fused_optimizer)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _step: 1.0)
    Trainer(
        model=model,
        args=arguments,
        train_dataset=workload.dataset(),
        data_collator=collated,
        callbacks=[watch],
        optimizers=(optimizer, schedule),
    ).train()
    return watch.steps * config.effective_batch_size / (watch.ended_s - watch.began_s)


def collated(samples: list[Any]) -> dict[str, Any]:
    from torch.utils.data import default_collate

    inputs, labels = default_collate(samples)
    return {"inputs": inputs, "labels": labels}


class Classifier:
    """A model in the form that the Trainer takes; made late, because importing torch takes its time."""

    @staticmethod
    def around(inner: Any, loss_fn: Any) -> Any:
        from torch import nn

        class Wrapped(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, inputs: Any, labels: Any) -> dict[str, Any]:
                return {"loss": loss_fn(self.inner, (inputs, labels))}

        return Wrapped()


if __name__ == "__main__":
    main()
