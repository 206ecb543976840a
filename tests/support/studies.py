"""Finished studies to report on: searched on a simulated machine, and grown or spoiled afterwards."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from autotune.config import TrainConfig
from autotune.records import Facts, Failure, Purpose, TrialRecord, TrialStatus
from autotune.report.reading import Reading, read_study
from autotune.store import StudyFolder
from support.bench import Bench
from support.facts import cuda_facts
from support.simulation import Behaviour, good_sense

_OUT_OF_MEMORY_AT = 256


def searched(
    folder: Path, behaviour: Behaviour = good_sense, *, facts: Facts | None = None, **sections: Any
) -> Reading:
    """A study that came to its end."""
    bench = Bench(folder, on_disk=True)
    bench.search(bench.backend(behaviour, facts=facts), **sections)
    return read_study(bench.folder)


def with_a_wall(config: TrainConfig) -> float | TrialStatus:
    """A machine that does well until its memory ends, which it does earlier in fp32."""
    wall = _OUT_OF_MEMORY_AT if config.amp_dtype != "none" else _OUT_OF_MEMORY_AT // 2
    return TrialStatus.OOM if config.micro_batch_size >= wall else good_sense(config)


def on_a_gpu(folder: Path, **sections: Any) -> Reading:
    """With fp16, pinned memory, TF32, and a wall."""
    return searched(folder, with_a_wall, facts=cuda_facts(), **sections)


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
