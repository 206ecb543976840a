"""A sweep on a simulated machine: everything once, in passes, into a table that goes on where it was left."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.facts import cpu_facts
from support.simulation import Behaviour, Clock, FormulaBackend, good_sense

from autotune.bench.sweep import SweepPlan, SweepProgress, sweep
from autotune.config import TrainConfig
from autotune.errors import SpecError, StudyMismatch
from autotune.records import RecordedRun, Table, TrialStatus
from autotune.search import build_space
from autotune.spec import load_spec
from autotune.tables import read_table

SPEC: dict[str, Any] = {
    "model": {"timm": "resnet18"},
    "data": {"synthetic": {"image_size": 64}},
    "training": {"effective_batch_size": "free"},
    "budget": "5m",
    "search": {
        "micro_batch_size": [8, 16, 32],
        "grad_accum_steps": 1,
        "amp_dtype": ["none", "bf16"],
        "num_workers": 0,
        "memory_format": ["contiguous", "channels_last"],
        "compile": "none",
        "fused_optimizer": False,
        "num_threads": 4,
        "activation_checkpointing": False,
    },
}
CONFIGURATIONS = 12


class Sweeps:
    """Sweeps of one spec in one folder, each on a backend of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.backend = FormulaBackend(Clock(), cpu_facts())
        self.progress: list[SweepProgress] = []

    def run(
        self,
        *,
        repeats: int = 1,
        sample: int | None = None,
        trial_s: float = 1.5,
        behaviour: Behaviour = good_sense,
        interrupt_at: int | None = None,
        **sections: Any,
    ) -> Table:
        file = self.folder / "spec.yaml"
        file.write_text(yaml.safe_dump(SPEC | sections))
        self.backend = FormulaBackend(Clock(), cpu_facts(), behaviour)
        self.backend.interrupt_at = interrupt_at
        path = sweep(
            load_spec(file),
            SweepPlan(trial_s=trial_s, repeats=repeats, sample=sample, seed=0),
            out=None,
            studies=self.folder / "studies",
            command="autotune sweep spec.yaml",
            on_run=self.progress.append,
            start_backend=self.backend,
        )
        return read_table(path)

    @property
    def ran(self) -> int:
        return len(self.backend.requests)


@pytest.fixture
def sweeps(tmp_path: Path) -> Sweeps:
    return Sweeps(tmp_path)


def test_every_configuration_is_measured_in_every_pass(sweeps: Sweeps) -> None:
    table = sweeps.run(repeats=3)
    assert set(Counter(run.config for run in table.runs).values()) == {3}
    assert len(table.by_config()) == table.planned == table.size == CONFIGURATIONS
    first_pass = [run.config for run in table.runs[:CONFIGURATIONS]]
    assert len(set(first_pass)) == CONFIGURATIONS
    assert first_pass != [run.config for run in table.runs[CONFIGURATIONS : 2 * CONFIGURATIONS]]
    assert sweeps.backend.closed


def test_a_run_keeps_blocks_phases_memory_and_costs(sweeps: Sweeps) -> None:
    run = sweeps.run().runs[0]
    block = run.blocks[0].block()
    assert sum(block.phases.values()) == pytest.approx(block.seconds, rel=0.01)
    assert run.memory is not None
    assert run.wall_s > sum(row.seconds for row in run.blocks)
    samples, seconds = sum(row.samples for row in run.blocks), sum(row.seconds for row in run.blocks)
    assert run.samples_per_s == pytest.approx(samples / seconds, rel=1e-4)


def test_a_failure_is_kept_with_its_reason_and_not_run_again(sweeps: Sweeps) -> None:
    def wall(config: TrainConfig) -> float | TrialStatus:
        return TrialStatus.OOM if config.micro_batch_size == 32 and config.amp_dtype == "none" else good_sense(config)

    table = sweeps.run(repeats=2, behaviour=wall)
    failed = [run for run in table.runs if run.status is TrialStatus.OOM]
    assert len(failed) == 2
    assert all(run.failure and run.samples_per_s is None for run in failed)
    assert len(table.runs) == 2 * CONFIGURATIONS - 2
    assert sweeps.progress[-1].done == sweeps.progress[-1].planned == len(table.runs)


def test_an_interrupted_sweep_goes_on_where_it_was(sweeps: Sweeps) -> None:
    with pytest.raises(KeyboardInterrupt):
        sweeps.run(interrupt_at=6)
    assert sweeps.backend.closed
    table = sweeps.run()
    assert sweeps.ran == CONFIGURATIONS - 5
    assert len(table.by_config()) == len(table.runs) == CONFIGURATIONS
    sweeps.run()
    assert sweeps.ran == 0


def test_more_repeats_add_passes_to_what_there_is(sweeps: Sweeps) -> None:
    sweeps.run()
    table = sweeps.run(repeats=2)
    assert sweeps.ran == CONFIGURATIONS
    assert table.repeats == 2


@pytest.mark.parametrize(
    ("changed", "named"), [({"training": {"seed": 4}}, "spec.training.seed"), ({"trial_s": 2.5}, r"plan\.trial_s")]
)
def test_a_table_of_something_else_is_left_alone(sweeps: Sweeps, changed: dict[str, Any], named: str) -> None:
    before = sweeps.run()
    with pytest.raises(StudyMismatch, match=named):
        sweeps.run(**changed)
    assert sweeps.run() == before


def test_a_sample_covers_every_value_about_evenly(sweeps: Sweeps) -> None:
    table = sweeps.run(sample=8)
    configs = list(table.by_config())
    assert len(configs) == 8
    assert all(sum(config.micro_batch_size == size for config in configs) >= 2 for size in (8, 16, 32))
    assert 3 <= sum(config.amp_dtype == "bf16" for config in configs) <= 5
    space = build_space(load_spec(sweeps.folder / "spec.yaml").spec, cpu_facts())
    assert space.baseline in configs


def test_a_space_without_end_asks_for_a_sample(sweeps: Sweeps) -> None:
    huge = {"search": {"micro_batch_size": {"min": 1, "max": 900, "step": 1}, "grad_accum_steps": [1, 2, 3, 4, 5, 6]}}
    with pytest.raises(SpecError, match="--sample"):
        sweeps.run(**huge)
    assert len(sweeps.run(sample=10, **huge).by_config()) == 10


def test_a_table_is_loaded_with_pandas(sweeps: Sweeps) -> None:
    """As studies/recorded/README.md shows it."""
    import gzip
    import json

    import pandas

    sweeps.run()
    (path,) = (sweeps.folder / "studies" / "recorded").iterdir()
    frame = pandas.json_normalize(json.loads(gzip.decompress(path.read_bytes()))["runs"])
    assert len(frame) == CONFIGURATIONS
    assert {"config.micro_batch_size", "samples_per_s", "wall_s", "status", "memory.resident_bytes"} <= set(
        frame.columns
    )
    assert frame.samples_per_s.dtype == float


def test_what_was_disturbed_is_run_once_more_and_then_kept(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is always busy: not again and again, however often the command is given."""
    monkeypatch.setattr(RecordedRun, "disturbed_share", 0.9)
    table = sweeps.run()
    assert sweeps.ran == 2 * CONFIGURATIONS
    assert all(run.again for run in table.runs)
    assert len(table.runs) == len(table.by_config()) == CONFIGURATIONS
    sweeps.run()
    assert sweeps.ran == 0


def test_an_interrupt_amid_the_repeats_loses_no_run(sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RecordedRun, "disturbed_share", 0.9)
    with pytest.raises(KeyboardInterrupt):
        sweeps.run(interrupt_at=CONFIGURATIONS + 3)
    assert sweeps.progress[-1].remaining_s > 0
    assert sweeps.progress[-1].done < sweeps.progress[-1].planned == 2 * CONFIGURATIONS
    table = sweeps.run()
    assert sweeps.ran == CONFIGURATIONS - 2
    assert len(table.runs) == len(table.by_config()) == CONFIGURATIONS


def test_another_sample_is_another_table(sweeps: Sweeps) -> None:
    sweeps.run(sample=6)
    with pytest.raises(StudyMismatch, match=r"plan\.sample"):
        sweeps.run(sample=8)
