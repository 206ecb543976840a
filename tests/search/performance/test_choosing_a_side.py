"""Sides that were measured alone: what the model learns from them, and when one is worth its seconds."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.facts import cpu_facts, cuda_facts
from support.feeding import Feeding
from support.runs import run

from autotune.config import TrainConfig
from autotune.records import Block, Memory, Side, SideRate, TrialResult, TrialStatus
from autotune.search import Space, build_space
from autotune.search.performance import Observation, PerformanceModel, observe
from autotune.search.performance.encoding import Encoding
from autotune.search.performance.proposal import Proposer
from autotune.search.performance.side_costs import SideCosts
from autotune.search.performance.sides import Aside, are_independent, propose_side
from autotune.spec import parse_spec

SPEC: dict[str, Any] = {
    "model": {"timm": "resnet50"},
    "data": {"synthetic": {"image_size": 64, "samples": 100_000}},
    "training": {"effective_batch_size": 256},
    "budget": "5m",
    "baseline": {"micro_batch_size": 32, "num_workers": 0},
    "search": {
        "micro_batch_size": [32, 64, 128, 256],
        "grad_accum_steps": [1, 2, 4, 8],
        "amp_dtype": ["none", "bf16"],
        "memory_format": ["contiguous", "channels_last"],
        "num_workers": [0, 1, 2, 4],
        "prefetch_factor": 2,
        "pin_memory": [False, True],
        "compile": "none",
        "fused_optimizer": False,
        "activation_checkpointing": False,
        "fp32_precision": "tf32",
    },
}
GPU, CPU = cuda_facts(), cpu_facts()
SPACE: Space = build_space(parse_spec(SPEC, "."), GPU)
WORLD = Feeding(4, 0.0005, 0.0005, 1 / 900)
PLAIN = SPACE.baseline
FAST = PLAIN.replace(
    micro_batch_size=256, grad_accum_steps=1, amp_dtype="bf16", memory_format="channels_last", num_workers=4
).replace(prefetch_factor=2)


def alone(config: TrainConfig, side: Side, world: Feeding = WORLD) -> Observation:
    whole = world.observed(config)
    common: dict[str, Any] = {"status": "ok", "wall_s": 2.0, "overhead_s": 0.8, "side": side}
    if side == "loader":
        told = ("supply_s", "supply_error", "fetch_cpu_s")
        return Observation(**common, **{name: getattr(whole, name) for name in told})
    return Observation(
        **common, first_step_s=1.0, compute_s=whole.compute_s, optimizer_s=whole.optimizer_s, step_error=0.005
    )


def model_of(*sides: tuple[TrainConfig, Observation], world: Feeding = WORLD) -> PerformanceModel:
    """After the baseline's whole trial and these."""
    model = PerformanceModel(SPACE, GPU)
    model.fit([(PLAIN, world.observed(PLAIN))], sides=sides)
    return model


def predicted(model: PerformanceModel, config: TrainConfig) -> tuple[float, float]:
    prediction = model.predict(model.encoding.encode([config]))
    return float(np.exp(prediction.mean[0])), float(prediction.doubt[0])


def doubts(model: PerformanceModel, config: TrainConfig) -> tuple[float, float]:
    step, loading, _ = model.doubts(model.encoding.encode([config]))
    return float(step[0]), float(loading[0])


def test_a_combination_is_known_from_its_two_sides() -> None:
    before, after = model_of(), model_of((FAST, alone(FAST, "step")), (FAST, alone(FAST, "loader")))
    figure, doubt = predicted(after, FAST)
    assert figure == pytest.approx(WORLD.samples_per_s(FAST), rel=0.1)
    assert doubt < 0.1 < predicted(before, FAST)[1]


def test_a_step_tells_of_steps_alone_and_a_loader_of_loading() -> None:
    loads = Feeding(4, 0.004, 0.004, 1 / 900)  # so slowly that both sides matter
    before = doubts(model_of(world=loads), FAST)
    by_step = doubts(model_of((FAST, alone(FAST, "step", loads)), world=loads), FAST)
    by_loader = doubts(model_of((FAST, alone(FAST, "loader", loads)), world=loads), FAST)
    assert by_loader[1] < before[1] / 2
    assert by_step[1] == pytest.approx(before[1], rel=0.3)


def test_a_step_that_ran_out_of_memory_tells_where_it_ends() -> None:
    failed = Observation(status="oom", wall_s=1.0, overhead_s=1.0, side="step")
    model = model_of((FAST, failed))
    assert model.memory.has_ended
    assert model.memory.probability_to_fit(model.encoding.encode([FAST]))[0] == 0.0


def test_a_whole_trials_figure_and_interplay_stay_its_own() -> None:
    whole = replace(WORLD.observed(PLAIN), samples_per_s=0.5 * WORLD.samples_per_s(PLAIN))
    model = PerformanceModel(SPACE, GPU)
    model.fit([(PLAIN, whole)], sides=[(PLAIN, alone(PLAIN, "step"))])
    assert math.exp(model.likely(PLAIN)) == pytest.approx(whole.samples_per_s or 0.0, rel=0.1)


def result_of(side: Side | None, rate: SideRate | None, status: TrialStatus = TrialStatus.OK) -> TrialResult:
    phases: Any = {"forward_backward": 0.8, "optimizer": 0.2}
    blocks = [Block(steps=10, samples=2560, seconds=1.0, phases=phases)] * 3 if side == "step" else []
    memory = Memory(reserved_bytes=1 << 30, resident_bytes=1 << 31, resident_growth_bytes=1 << 20)
    plain = run([], config=FAST, status=status, blocks=blocks, memory=memory)
    return plain.model_copy(update={"side": side, "side_rate": rate})


def test_what_a_step_alone_has_seen() -> None:
    seen = observe(result_of("step", SideRate(per_s=2560.0, error=0.01, seconds=3.0)))
    assert (seen.has_figure, seen.has_step, seen.has_loading) == (False, True, False)
    assert (seen.compute_s, seen.optimizer_s) == pytest.approx((0.08, 0.02))
    assert (seen.step_error, seen.memory_bytes) == (0.01, 1 << 30)


def test_what_a_loader_alone_has_seen() -> None:
    rate = SideRate(per_s=2000.0, error=0.02, seconds=1.0, fetch_s=0.5, fetch_cpu_s=0.256)
    seen = observe(result_of("loader", rate))
    assert (seen.has_figure, seen.has_step, seen.has_loading) == (False, False, True)
    assert (seen.supply_s, seen.supply_error, seen.fetch_cpu_s) == pytest.approx((0.0005, 0.02, 0.001))
    assert seen.memory_bytes is None, "a process without a model"


@pytest.mark.parametrize("side", ["step", "loader"])
def test_a_side_that_failed_has_nothing(side: Side) -> None:
    seen = observe(result_of(side, None, TrialStatus.FAILED))
    assert not (seen.has_figure or seen.has_step or seen.has_loading)


def next_side(
    *sides: tuple[TrainConfig, Observation], world: Feeding = WORLD, seconds_left: float = 200.0
) -> Aside | None:
    model = model_of(*sides, world=world)
    return propose_side(
        Proposer(SPACE, seed=0),
        model,
        tried=[PLAIN],
        taken={PLAIN},
        trials=[(PLAIN, world.observed(PLAIN))],
        sides=sides,
        seconds_left=seconds_left,
        seed=0,
    )


def until_enough(world: Feeding, most: int = 40) -> list[tuple[TrainConfig, Observation]]:
    found: list[tuple[TrainConfig, Observation]] = []
    while len(found) < most:
        aside = next_side(*found, world=world)
        if aside is None:
            break
        found.append((aside.config, alone(aside.config, aside.side, world)))
    return found


def test_a_step_is_measured_first_where_steps_are_what_nobody_knows() -> None:
    aside = next_side()
    assert aside is not None
    assert aside.side == "step"
    assert aside.config.amp_dtype == "bf16"


@pytest.mark.parametrize("load_s", [0.0001, 0.002, 0.008])
def test_few_sides_find_a_combination_near_the_best(load_s: float) -> None:
    """640 combinations."""
    world = Feeding(4, load_s / 2, load_s / 2, 1 / 900)
    sides = until_enough(world)
    assert len(sides) < 25
    assert len({(config, seen.side) for config, seen in sides}) == len(sides), "none twice"
    model = model_of(*sides, world=world)
    configs = SPACE.configurations()
    best = configs[int(np.argmax(model.predict(model.encoding.encode(configs)).mean))]
    assert world.samples_per_s(best) > 0.95 * max(map(world.samples_per_s, configs))


def test_a_loader_is_measured_where_loading_is_the_limit() -> None:
    sides = {seen.side for _, seen in until_enough(Feeding(4, 0.004, 0.004, 1 / 900))}
    assert "loader" in sides


def test_there_has_to_be_time_for_a_whole_trial_after_it() -> None:
    assert next_side(seconds_left=8.0) is None


def test_without_trials_that_tell_the_sides_apart_there_are_none() -> None:
    """As in records of before, and of backends that have no rates."""
    model, seen = PerformanceModel(SPACE, GPU), WORLD.observed(PLAIN, rates=False)
    model.fit([(PLAIN, seen)])
    asked = propose_side(
        Proposer(SPACE, seed=0),
        model,
        tried=[PLAIN],
        taken={PLAIN},
        trials=[(PLAIN, seen)],
        sides=(),
        seconds_left=math.inf,
        seed=0,
    )
    assert asked is None


def test_on_a_cpu_the_sides_are_apart_only_where_loading_hardly_computes() -> None:
    space = build_space(parse_spec({**SPEC, "search": {"micro_batch_size": [32, 64]}}, "."), CPU)
    for wait_s, compute_s, apart in ((0.0, 0.001, False), (0.001, 0.00001, True)):
        world = Feeding(4, compute_s, wait_s, 1 / 100, on_cpu=True)
        model = PerformanceModel(space, CPU)
        model.fit([(space.baseline, world.observed(space.baseline))])
        assert are_independent(model, 500.0) is apart
    assert are_independent(model_of(world=Feeding(4, 0.001, 0.0, 1 / 900)), 500.0), "an accelerator has its own"


def test_batches_of_a_size_that_lie_there_cost_nothing_more() -> None:
    slow = Feeding(4, 0.004, 0.004, 1 / 900)
    other = FAST.replace(micro_batch_size=128, grad_accum_steps=2)

    def step_s(*sides: tuple[TrainConfig, Observation]) -> list[float]:
        costs = SideCosts(model_of(world=slow), [(PLAIN, slow.observed(PLAIN))], sides, [FAST, other])
        return [float(seconds) for seconds in costs.step_s]

    first, then = step_s(), step_s((FAST, replace(alone(FAST, "step", slow), overhead_s=2.0)))
    assert first[0] - then[0] == pytest.approx(256 * slow.supply_s(4) * 4, rel=0.3)
    assert first[1] == pytest.approx(then[1])


def test_a_loader_is_drained_for_two_rounds_at_least() -> None:
    slow = Feeding(4, 0.02, 0.02, 1 / 900)
    costs = SideCosts(model_of(world=slow), [(PLAIN, slow.observed(PLAIN))], (), [FAST])
    fetch_s = 256 * slow.supply_s(4) * 4
    assert costs.loader_s[0] == pytest.approx(3 * fetch_s, rel=0.3)


def test_training_of_several_processes_has_no_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    assert next_side() is not None
    make = Encoding.__init__

    def of_two(self: Encoding, *arguments: Any) -> None:
        make(self, *arguments)
        self.world_size = 2

    monkeypatch.setattr(Encoding, "__init__", of_two)
    assert next_side() is None


def test_another_number_of_loader_processes_does_not_make_another_step() -> None:
    """On an accelerator; and a step that was measured alone had none of them."""
    quick = Feeding(4, 0.00005, 0.00005, 1 / 900)
    model, fewer = model_of((FAST, alone(FAST, "step", quick)), world=quick), FAST.replace(num_workers=1)
    assert doubts(model, fewer)[0] == pytest.approx(doubts(model, FAST)[0], abs=0.03)
    assert doubts(model, fewer)[0] < doubts(model_of(world=quick), fewer)[0] / 4
    step = next_side()
    assert step is not None
    found = next_side((step.config, alone(step.config, "step")))
    assert found is not None
    without = {"num_workers": 0, "prefetch_factor": None}
    assert found.side == "loader" or found.config.with_values(without) != step.config.with_values(without)


def test_where_slow_batches_come_loaders_are_drained_once_the_best_was_tried() -> None:
    """Of its own size, and of the baseline's with as many processes; no others, and each once."""
    slow = replace(WORLD.observed(FAST), slow_batches=2)
    trials = [(PLAIN, WORLD.observed(PLAIN)), (FAST, slow)]
    found: list[tuple[TrainConfig, Observation]] = []

    def ask(tried: list[tuple[TrainConfig, Observation]]) -> Aside | None:
        model = PerformanceModel(SPACE, GPU)
        model.fit(tried, sides=found)
        configs = [config for config, _ in tried]
        return propose_side(
            Proposer(SPACE, seed=0),
            model,
            tried=configs,
            taken=set(configs),
            trials=tried,
            sides=found,
            seconds_left=200.0,
            seed=0,
        )

    for size in (FAST.micro_batch_size, PLAIN.micro_batch_size):
        aside = ask(trials)
        assert aside is not None
        assert (aside.side, aside.config.micro_batch_size) == ("loader", size)
        assert aside.config.num_workers == FAST.num_workers
        found.append((aside.config, alone(aside.config, "loader")))
    last = ask(trials)
    assert last is None or last.side == "step"
    found.clear()
    quick = ask([(PLAIN, WORLD.observed(PLAIN)), (FAST, replace(slow, slow_batches=0))])
    assert quick is None or quick.side == "step"
