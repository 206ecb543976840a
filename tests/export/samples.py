"""Results to export, without a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autotune.config import TrainConfig
from autotune.emitted import Emitted, Measured
from autotune.export import Source
from autotune.spec import parse_spec, with_arguments

SPEC: dict[str, Any] = {
    "name": "mine",
    "model": {"timm": "resnet18"},
    "data": {"synthetic": {"image_size": 32, "samples": 64, "classes": 4}},
    "training": {"optimizer": {"name": "adamw", "lr": 0.001}, "clip_grad_norm": 1.0},
    "search": {"custom": {"rate": {"values": [0.0, 0.25, 0.5], "arg": "model.args.drop_rate"}}},
    "budget": "2m",
}
PLAIN = TrainConfig(micro_batch_size=8)
ON_CPU = TrainConfig(
    micro_batch_size=8,
    grad_accum_steps=2,
    amp_dtype="bf16",
    num_workers=2,
    prefetch_factor=4,
    memory_format="channels_last",
    compile="default",
    fused_optimizer=True,
    activation_checkpointing=True,
    num_threads=1,
    custom=(("rate", 0.25),),
)
"""Every knob that a CPU has differs from PyTorch's default."""
ON_CUDA = ON_CPU.replace(amp_dtype="fp16", pin_memory=True, fp32_precision="tf32", compile="max-autotune")
"""Every knob differs from PyTorch's default."""
AFFORDABLE = ON_CPU.replace(num_workers=0, prefetch_factor=None, compile="none", activation_checkpointing=False)
"""What a test can afford: no processes, no compilation."""


def source(
    config: TrainConfig = ON_CPU,
    *,
    kind: str = "cpu",
    verdict: str = "stable",
    baseline: TrainConfig | None = None,
    torch: str = "2.15.0+cu130",
    folder: Path | None = None,
    data_folder: str | None = None,
    **sections: Any,
) -> Source:
    before = Measured(
        config=baseline or PLAIN.replace(micro_batch_size=4), samples_per_s=100.0, samples_per_s_ci95=None
    )
    emitted = Emitted(
        study="mine",
        best=Measured(config=config, samples_per_s=208.0, samples_per_s_ci95=(190.0, 230.0)),
        baseline=before,
        speedup=2.08,
        speedup_ci95=(1.9, 2.3),
        verdict=verdict,
        environment={"device": "a device", "device_kind": kind, "torch": torch, "autotune": "0.1.0"},
    )
    spec = with_arguments(parse_spec(SPEC | sections, "/"), dict(config.custom))
    return Source(emitted=emitted, spec=spec, folder=folder, data_folder=data_folder)
