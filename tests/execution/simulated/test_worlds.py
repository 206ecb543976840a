"""Each world of the catalogue: a whole search in it, and trials measured in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support.storage import MemoryStudies

from autotune.config import TrainConfig
from autotune.execution.simulated import SimulatedBackend, VirtualClock, World, truth
from autotune.execution.simulated.catalogue import CPU, H200, HARDWARE, worlds
from autotune.records import TrialRequest, TrialStatus
from autotune.search import search
from autotune.spec import load_spec
from autotune.store import StudyFolder

ALL = [world for hardware in (CPU, H200) for world in worlds(hardware).values()]
PAIRS = zip(worlds(CPU).values(), worlds(H200).values(), strict=True)
EACH_ONCE = [pair[number % 2] for number, pair in enumerate(PAIRS)]
"""On the CPU and on the H200 in turns."""


def name(world: World) -> str:
    return f"{world.hardware.device}: {world.name}"


def config_of(world: World, workers: int) -> TrainConfig:
    return TrainConfig(
        micro_batch_size=world.effective_batch_size // 2,
        grad_accum_steps=2,
        amp_dtype="bf16",
        memory_format="channels_last",
        num_workers=workers,
        prefetch_factor=2 if workers else None,
    )


def shorter(budget: str) -> str:
    """Six tenths, with which the search of every world still emits something much faster and stable."""
    return f"{36 * int(budget.removesuffix('m'))}s"


def test_there_are_ten_worlds_for_each_hardware() -> None:
    assert all(len(worlds(hardware)) >= 10 for hardware in HARDWARE.values())


def test_every_world_is_searched() -> None:
    assert {world.name for world in EACH_ONCE} == {world.name for world in ALL}


@pytest.mark.parametrize("world", EACH_ONCE, ids=name)
def test_a_search_in_each_world_emits_what_is_no_slower_than_the_baseline(world: World, tmp_path: Path) -> None:
    spec = {
        "model": {"timm": "resnet18"},
        "data": {"synthetic": {"samples": world.samples}},
        "training": {"effective_batch_size": world.effective_batch_size},
        "budget": shorter(world.budget),
        "baseline": dict(world.baseline),
        "search": {knob: list(value) if isinstance(value, tuple) else value for knob, value in world.search},
        "stability": {"soak_steps": 10},
        "strategy": {"name": "random"},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    clock = VirtualClock()
    best = search(
        load_spec(tmp_path / "spec.yaml"),
        StudyFolder(tmp_path / "study"),
        open_study=MemoryStudies(),
        start_backend=SimulatedBackend(world, clock, seed=0),
        clock=clock,
    ).best
    emitted, baseline = TrainConfig.from_dict(best["config"]), TrainConfig.from_dict(best["baseline"]["config"])
    assert truth(world, emitted) >= 0.99 * truth(world, baseline)


@pytest.mark.parametrize("world", [world for world in ALL if world.cold_times == 1 and not world.is_noisy], ids=name)
def test_a_long_trial_measures_the_truth(world: World) -> None:
    backend = SimulatedBackend(world, VirtualClock(), seed=0)
    config = config_of(world, 4)
    request = TrialRequest(config=config, seed=0, time_limit_s=40.0, target_relative_error=0.005, min_blocks=8)
    result = backend.run(request, deadline_s=1000.0, on_event=lambda _event: None)
    assert result.status is TrialStatus.OK
    assert result.rates is not None
    assert result.rates.sustained_per_s == pytest.approx(truth(world, config), rel=0.1)


def test_the_same_seed_gives_the_same_run() -> None:
    world = worlds(CPU)["both close"]
    request = TrialRequest(config=config_of(world, 2), seed=0, time_limit_s=3.0)
    one, other = (
        SimulatedBackend(world, VirtualClock(), seed=5).run(request, deadline_s=100.0, on_event=lambda _event: None)
        for _ in range(2)
    )
    assert one == other


def test_a_run_is_killed_at_its_deadline() -> None:
    world, clock = worlds(CPU)["steps of 2 s"], VirtualClock()
    began_s = clock()
    request = TrialRequest(config=config_of(world, 2), seed=0, time_limit_s=60.0)
    result = SimulatedBackend(world, clock, seed=0).run(request, deadline_s=9.0, on_event=lambda _event: None)
    assert result.status is TrialStatus.TIMEOUT
    assert clock() == began_s + 9.0


def test_what_does_not_fit_runs_out_of_memory() -> None:
    world = worlds(H200)["compute-bound"]
    config = config_of(world, 2).replace(micro_batch_size=4096)
    request = TrialRequest(config=config, seed=0, time_limit_s=60.0)
    result = SimulatedBackend(world, VirtualClock(), seed=0).run(request, deadline_s=90, on_event=lambda _event: None)
    assert result.status is TrialStatus.OOM
