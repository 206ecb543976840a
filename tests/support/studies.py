"""Finished studies to report on: searched once on a simulated machine, copied, and grown or spoiled afterwards."""

from __future__ import annotations

import atexit
import functools
import itertools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autotune.config import TrainConfig
from autotune.records import Failure, Purpose, TrialRecord, TrialRequest, TrialResult, TrialStatus, WarmUp
from autotune.report.reading import Reading, read_study
from autotune.store import StudyFolder
from support.bench import Bench
from support.facts import cuda_facts
from support.simulation import good_sense

_OUT_OF_MEMORY_AT = 256
_BUDGET = "3m"


def with_a_wall(config: TrainConfig) -> float | TrialStatus:
    """A machine that does well until its memory ends, which it does earlier in fp32."""
    wall = _OUT_OF_MEMORY_AT if config.amp_dtype != "none" else _OUT_OF_MEMORY_AT // 2
    return TrialStatus.OOM if config.micro_batch_size >= wall else good_sense(config)


def _on_a_cpu(bench: Bench) -> None:
    bench.search(bench.backend(), budget=_BUDGET)


def _on_a_gpu(bench: Bench, **sections: Any) -> None:
    bench.search(bench.backend(with_a_wall, facts=cuda_facts()), **{"budget": _BUDGET} | sections)


def _all_alike(bench: Bench) -> None:
    bench.search(bench.backend(lambda _config: 100.0), budget=_BUDGET)


def _refused_bf16(bench: Bench) -> None:
    def loss(config: TrainConfig, samples: int) -> float:
        return 2.3 if config.amp_dtype == "bf16" else 2.3 / (1 + samples / 1000)

    bench.search(bench.backend(loss=loss), budget=_BUDGET)


def _slow_starters(bench: Bench) -> None:
    def training(request: TrialRequest, result: TrialResult) -> TrialResult:
        first_step_s = 1.0 if request.config.micro_batch_size <= 16 else 5.0
        warm_up = result.warm_up or WarmUp(steps=1, seconds=1.0, first_step_s=1.0, settled=True)
        return result.model_copy(update={"warm_up": warm_up.model_copy(update={"first_step_s": first_step_s})})

    def speed(config: TrainConfig) -> float:
        return 90.0 if config.micro_batch_size <= 16 else 100.0

    bench.search(bench.backend(speed, training=training), constraints=["first_step_s <= 3s"], budget="5m")


_SEARCHES: dict[str, Callable[[Bench], None]] = {
    "cpu": _on_a_cpu,
    "gpu": _on_a_gpu,  # with fp16, pinned memory, TF32, and a wall
    "gpu by auto": functools.partial(_on_a_gpu, strategy={"name": "auto"}, budget="4m"),
    "refused": _refused_bf16,  # the fastest by far learn nothing, and the gates refuse them
    "constrained": _slow_starters,  # all but small micro-batches break a constraint, the baseline too, and are faster
    "baseline": _all_alike,
}


@functools.cache
def _searched(kind: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="autotune-studies-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    bench = Bench(folder)
    _SEARCHES[kind](bench)
    bench.to_disk()
    return folder


def finished(kind: str, folder: Path) -> Reading:
    """A study that came to its end, in `folder` and free to be changed there."""
    shutil.copytree(_searched(kind), folder, dirs_exist_ok=True)
    return read_study(StudyFolder(folder / "study"))


def grown(reading: Reading, trials: int) -> Reading:
    """The same study with so many trials of its search."""
    folder = StudyFolder(reading.folder.path)
    last = max(record.number for record in reading.records)
    originals = itertools.cycle(record for record in reading.searched if record.purpose is Purpose.SEARCH)
    configs = itertools.cycle(reading.space.configurations())
    for place in range(1, trials - len(reading.searched) + 1):
        original = next(originals)
        result = original.result.model_copy(update={"config": next(configs)})
        changes = {"number": last + place, "optuna_trial": last + place, "result": result}
        folder.write_trial(original.model_copy(update=changes))
    return read_study(folder)


def with_failure(reading: Reading, reason: str, output: str = "", count: int = 1) -> Reading:
    """The same study with `count` more trials that ended so."""
    folder = StudyFolder(reading.folder.path)
    last = reading.records[-1]
    for place in range(1, count + 1):
        folder.write_trial(_failed(last, last.number + place, reason, output))
    return read_study(folder)


def _failed(like: TrialRecord, number: int, reason: str, output: str) -> TrialRecord:
    failure = Failure(reason=reason, traceback=f"Traceback (most recent call last):\n  {output[:4000]}")
    changes = {"status": TrialStatus.FAILED, "blocks": (), "failure": failure, "output_tail": output}
    result = like.result.model_copy(update=changes)
    return like.model_copy(update={"number": number, "purpose": Purpose.SEARCH, "round": None, "result": result})
