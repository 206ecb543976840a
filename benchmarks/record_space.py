"""Records a small space on a noisy machine, for `tests/search/test_noise.py` to search again and again.

    python benchmarks/record_space.py OUT.json.gz [RUNS] [SECONDS]

Every configuration is run RUNS times for SECONDS in a fresh process, in random order, while another process keeps one
core busy in bursts. Every timed block is kept, with what the machine did meanwhile.
"""

from __future__ import annotations

import datetime
import gzip
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from autotune.config import TrainConfig
from autotune.execution import LocalBackend
from autotune.records import Facts, TrialRequest

MICRO, AMP, LAYOUTS = (8, 16, 32), ("none", "bf16"), ("contiguous", "channels_last")
EFFECTIVE = 32
NEVER = 1_000_000
SPEC: dict[str, Any] = {
    "model": {"timm": "resnet18", "args": {"num_classes": 10}},
    "data": {"synthetic": {"samples": 1024, "classes": 10, "image_size": 64}},
    "training": {"optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.9}, "effective_batch_size": EFFECTIVE},
    "budget": "2h",
}
BURSTS = """
import random, time
random.seed(0)
while True:
    time.sleep(random.uniform(1.0, 5.0))
    until = time.monotonic() + random.uniform(0.1, 0.6)
    while time.monotonic() < until:
        pass
"""


def main() -> None:
    out = Path(sys.argv[1])
    runs, seconds = int((sys.argv[2:3] or ["8"])[0]), float((sys.argv[3:4] or ["5"])[0])
    configs = [
        TrainConfig(micro_batch_size=micro, grad_accum_steps=EFFECTIVE // micro, amp_dtype=amp, memory_format=layout)  # type: ignore[arg-type]
        for micro, amp, layout in itertools.product(MICRO, AMP, LAYOUTS)
    ]
    plan = [(config, number) for config in configs for number in range(runs)]
    random.Random(0).shuffle(plan)
    backend = LocalBackend(SPEC, Path.cwd())
    with subprocess.Popen([sys.executable, "-c", BURSTS]) as noise:
        try:
            facts = backend.facts(120)
            recorded = [record(backend, config, number, seconds) for config, number in plan]
        finally:
            noise.kill()
            backend.close()
    out.write_bytes(gzip.compress(json.dumps(document(facts, recorded, runs, seconds)).encode(), mtime=0))


def record(backend: LocalBackend, config: TrainConfig, seed: int, seconds: float) -> dict[str, Any]:
    request = TrialRequest(config=config, seed=seed, time_limit_s=seconds, min_blocks=NEVER, max_blocks=NEVER)
    result = backend.run(request, deadline_s=60 + 10 * seconds, on_event=lambda _event: None)
    print(result.status, config.canonical_json()[:120], flush=True)
    blocks = [
        [block.steps, block.samples, round(block.seconds, 5), list(block.disturbances)] for block in result.blocks
    ]
    first_step_s = round(result.warm_up.first_step_s, 4) if result.warm_up else 0.0
    return {"config": config.to_dict(), "start_up_s": result.start_up_s, "first_step_s": first_step_s, "blocks": blocks}


def document(facts: Facts, recorded: list[dict[str, Any]], runs: int, seconds: float) -> dict[str, Any]:
    """`blocks`: steps, samples, seconds, disturbances."""
    return {
        "recorded": datetime.date.today().isoformat(),
        "command": f"python benchmarks/record_space.py … {runs} {seconds:g}",
        "machine": f"{facts.host.cpu}, {facts.host.usable_cores} cores, torch {facts.host.versions['torch']}",
        "runs": recorded,
    }


if __name__ == "__main__":
    main()
