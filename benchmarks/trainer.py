"""What a study's configuration is worth inside Hugging Face's Trainer, beside what the study said.

    python benchmarks/trainer.py STUDY [ROUNDS] [SECONDS]

Alternates fresh processes that train the study's workload in the Trainer, with the exported arguments and with those of
the study's baseline, and trials of the same two.
"""

from __future__ import annotations

import dataclasses
import math
import random
import sys
import tempfile
from functools import partial
from pathlib import Path

from autotune.bench.exported import harness_run
from autotune.config import TrainConfig
from autotune.execution import LocalBackend
from autotune.export import Source, export, read_source
from autotune.records import TrialRequest
from autotune.search.duel import Measure
from autotune.stats import Rounds, throughput
from autotune.store import StudyFolder, read_resolved_spec

TARGET = "transformers"
DEADLINE_S = 180.0


def main() -> None:
    study, rounds, seconds = sys.argv[1], int((sys.argv[2:3] or ["8"])[0]), float((sys.argv[3:4] or ["6"])[0])
    folder, shuffle = StudyFolder(Path(study)), random.Random(0)
    spec_json, source = read_resolved_spec(folder), read_source(study)
    origin = source.folder or Path.cwd()
    as_baseline = dataclasses.replace(source.emitted, best=source.emitted.baseline)
    sources = {"emitted": source, "baseline": dataclasses.replace(source, emitted=as_baseline)}
    backend = LocalBackend(spec_json, origin)
    gains: dict[str, list[float]] = {"Trainer": [], "trials": []}
    try:
        backend.facts(DEADLINE_S)
        with tempfile.TemporaryDirectory() as scratch:
            ways: dict[tuple[str, str], Measure] = {}
            for side, own in sources.items():
                files = written(own, Path(scratch) / side)
                ways["Trainer", side] = harness_run(TARGET, files, spec_json, origin, own.config)
                ways["trials", side] = partial(in_a_trial, backend, own.config)
            for number in range(rounds):
                order = shuffle.sample(list(ways), len(ways))
                rates = {way: ways[way](number, seconds, DEADLINE_S) for way in order}
                for method, ratios in gains.items():
                    ratios.append(math.log(rates[method, "emitted"] / rates[method, "baseline"]))
                shown = ", ".join(f"{method} {side} {rates[method, side]:.0f}" for method, side in sorted(ways))
                print(f"round {number + 1}: {shown} samples/s", flush=True)
    finally:
        backend.close()
    for method, ratios in gains.items():
        print(f"{method}: {in_words(ratios)} the baseline; the study said {source.emitted.speedup:.2f}×")
    pairs = zip(gains["Trainer"], gains["trials"], strict=True)
    print(f"gain in the Trainer ÷ gain in trials: {in_words([ours - theirs for ours, theirs in pairs])}")


def written(source: Source, folder: Path) -> list[Path]:
    folder.mkdir()
    files = export(source, TARGET).files
    for name, text in files.items():
        (folder / name).write_text(text)
    return [folder / name for name in files]


def in_a_trial(backend: LocalBackend, config: TrainConfig, seed: int, seconds: float, deadline_s: float) -> float:
    request = TrialRequest(config=config, seed=seed, time_limit_s=seconds, target_relative_error=0.0)
    return throughput(backend.run(request, deadline_s=deadline_s, on_event=lambda _event: None).blocks)


def in_words(logs: list[float]) -> str:
    found = Rounds([[log, 0.0] for log in logs]).compare(0, 1).ratio
    within = f" ({found.interval.low:.2f} to {found.interval.high:.2f})" if found.interval else ""
    return f"{found.value:.2f}×{within}"


if __name__ == "__main__":
    main()
