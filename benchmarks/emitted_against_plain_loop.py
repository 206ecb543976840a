"""Whether the quick start's emitted configuration trains a plain loop as fast as it trained the trials: a trial and
`plain_loop.py`, alternating, each in a process of its own.

    python benchmarks/emitted_against_plain_loop.py studies/quickstart/best.yaml [PAIRS]
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
from pathlib import Path

import yaml

from autotune.config import TrainConfig
from autotune.execution import LocalBackend
from autotune.records import TrialRequest
from autotune.spec import load_spec
from autotune.stats import throughput
from autotune.workload.jpeg_cache import cached_jpegs

SPEC = Path(__file__).parents[1] / "specs" / "quickstart.yaml"
SECONDS = 2.0


def main() -> None:
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 30
    logs = compare(Path(sys.argv[1]), pairs)
    error = statistics.stdev(logs) / math.sqrt(len(logs))
    mean = statistics.fmean(logs)
    low, high = (math.exp(mean + sign * 1.96 * error) for sign in (-1, 1))
    print(f"plain loop / trial = {math.exp(mean):.3f}, 95 % interval {low:.3f} to {high:.3f}, {len(logs)} pairs")


def compare(best_file: Path, pairs: int) -> list[float]:
    """Logarithms of plain loop ÷ trial, one a pair, the two alternating in order."""
    config = TrainConfig.from_dict(yaml.safe_load(best_file.read_text())["config"])
    loaded = load_spec(SPEC)
    backend = LocalBackend(loaded.spec.model_dump(mode="json", exclude_none=True), loaded.folder)
    try:
        backend.facts(120)
        with plain_loop(best_file) as plain:
            ask(plain)
            ratios = []
            for number in range(pairs):
                turns = [lambda: ask(plain), lambda: trial(backend, config)]
                first, second = (turns[0](), turns[1]()) if number % 2 else (turns[1](), turns[0]())[::-1]
                ratios.append(math.log(first / second))
            plain.terminate()
    finally:
        backend.close()
    return ratios


def plain_loop(best_file: Path) -> subprocess.Popen[str]:
    images = cached_jpegs(samples=2048, classes=10, size=round(64 * 256 / 224), seed=0).root
    script = Path(__file__).with_name("plain_loop.py")
    command = [sys.executable, str(script), str(best_file), str(images), str(SECONDS)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(plain: subprocess.Popen[str]) -> float:
    if plain.stdin is None or plain.stdout is None:
        raise RuntimeError("the loop was started without pipes")
    plain.stdin.write("go\n")
    plain.stdin.flush()
    return float(plain.stdout.readline())


def trial(backend: LocalBackend, config: TrainConfig) -> float:
    request = TrialRequest(config=config, seed=0, time_limit_s=SECONDS + 0.5, target_relative_error=0.0)
    return throughput(backend.run(request, deadline_s=60, on_event=lambda _event: None).blocks)


if __name__ == "__main__":
    main()
