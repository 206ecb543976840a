"""Whether the stability gates refuse sound training: models that must pass, in low precision, many seeds each.

    python benchmarks/false_alarms.py OUT.json [SEEDS] [STEPS] [MODEL ...]

For each model: plain fp32 runs with seeds 0 … SEEDS + 1, and probes in bf16, channels_last, seeds 0 … SEEDS − 1.
Each probe is judged against the references of its own seed and of the next two, as a search judges it. OUT.json keeps
every loss, so that another limit can be tried without another run.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from autotune.config import TrainConfig
from autotune.execution import LocalBackend
from autotune.records import Check, TrialRequest, TrialResult
from autotune.search.gates import (
    finite_gradients,
    finite_loss,
    first_gradient_cosine,
    gradient_underflow,
    loss_against_reference,
    loss_rise,
    loss_spikes,
)

MODELS = {
    "resnet18": {"lr": 0.02},
    "vit_tiny_patch16_224": {"lr": 0.005},
    "efficientnet_b0": {"lr": 0.02},
    "mobilenetv3_small_100": {"lr": 0.02},
}
"""With dropout and stochastic depth as their authors train them, BatchNorm where they have it."""
EXTRA: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "drop_path_rate": 0.1},
    "efficientnet_b0": {"drop_rate": 0.2, "drop_path_rate": 0.2},
    "mobilenetv3_small_100": {"drop_rate": 0.2},
}
BATCH, TOLERANCE = 16, 0.05
NEVER = 1_000_000


def main() -> None:
    out = Path(sys.argv[1])
    seeds, steps = (int(argument) for argument in (*sys.argv[2:4], *("20", "40")[len(sys.argv[2:4]) :]))
    refused: dict[str, Any] = {}
    runs: dict[str, Any] = {}
    for model in sys.argv[4:] or MODELS:
        began = time.monotonic()
        references, probes = train(model, seeds, steps)
        verdicts = [judge(probe, references[seed : seed + 3]) for seed, probe in enumerate(probes)]
        refused[model] = summary(verdicts)
        runs[model] = {"references": losses(references), "probes": losses(probes), "checks": verdicts}
        out.write_text(json.dumps(runs))
        print(json.dumps({"model": model, "seconds": round(time.monotonic() - began), **refused[model]}), flush=True)


def train(model: str, seeds: int, steps: int) -> tuple[list[TrialResult], list[TrialResult]]:
    spec = {
        "model": {"timm": model, "args": {"num_classes": 10, **EXTRA.get(model, {})}},
        "data": {"synthetic": {"samples": 1024, "classes": 10, "image_size": 32}},
        "training": {"optimizer": {"name": "sgd", "momentum": 0.9, **MODELS[model]}},
        "budget": "1h",
    }
    plain = TrainConfig(micro_batch_size=BATCH, num_threads=1)
    low = plain.replace(amp_dtype="bf16", memory_format="channels_last")
    backend = LocalBackend(spec, Path.cwd())
    try:
        run = [(plain, seed) for seed in range(seeds + 2)] + [(low, seed) for seed in range(seeds)]
        results = [one_run(backend, config, seed, steps) for config, seed in run]
    finally:
        backend.close()
    return results[: seeds + 2], results[seeds + 2 :]


def one_run(backend: LocalBackend, config: TrainConfig, seed: int, steps: int) -> TrialResult:
    request = TrialRequest(
        config=config,
        seed=seed,
        time_limit_s=300.0,
        min_blocks=NEVER,
        max_blocks=NEVER,
        max_steps=steps,
        watch_training=True,
    )
    return backend.run(request, deadline_s=600.0, on_event=lambda _event: None)


def judge(probe: TrialResult, references: list[TrialResult]) -> list[dict[str, Any]]:
    own = references[0]
    checks: list[Check] = [
        finite_loss([probe]),
        finite_gradients([probe]),
        gradient_underflow(probe.first_gradient, own.first_gradient),
        first_gradient_cosine(probe.first_gradient, own.first_gradient),
        loss_rise(probe),
        loss_spikes([probe]),
        loss_against_reference(probe, references, TOLERANCE),
    ]
    return [check.model_dump(mode="json") for check in checks]


def summary(verdicts: list[list[dict[str, Any]]]) -> dict[str, Any]:
    flat = [check for verdict in verdicts for check in verdict]
    refusing = [check for check in flat if not check["passed"] and not check["warns_only"]]
    bands = [check for check in flat if check["name"] == "loss_against_reference"]
    return {
        "seeds": len(verdicts),
        "refused": len(refusing),
        "by": sorted({check["name"] for check in refusing}),
        "warned": sum(not check["passed"] and check["warns_only"] for check in flat),
        "could_not_tell": sum(not check["conclusive"] for check in bands),
        "band_limits": [round(f([check["limit"] for check in bands]), 3) for f in (min, max)],
        "largest_excess": round(max(check["value"] for check in bands), 3),
        "lowest_cosine": round(min(c["value"] for c in flat if c["name"] == "first_gradient_cosine"), 4),
    }


def losses(runs: list[TrialResult]) -> list[list[float]]:
    return [run.steps.losses if run.steps else [] for run in runs]


if __name__ == "__main__":
    main()
