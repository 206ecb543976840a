"""The performance model on machines in formulas: what few trials tell it about all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from support import worlds
from support.facts import cpu_facts, cuda_facts

from autotune.config import TrainConfig
from autotune.search import Space, build_space
from autotune.search.performance import Observation, PerformanceModel
from autotune.search.performance.learned import learned
from autotune.spec import parse_spec

GIB = worlds.GIB
SPACE: Space = build_space(parse_spec(worlds.CPU_SPEC, "."), cpu_facts())
HERE = TrainConfig(micro_batch_size=16, num_threads=4)


def observed(config: TrainConfig, world: worlds.World = worlds.cpu, **changes: Any) -> Observation:
    truth = world(config)
    step_s = truth.step_s(config)
    values: dict[str, Any] = {
        "status": "ok",
        "wall_s": 2.0,
        "overhead_s": 0.5,
        "first_step_s": step_s + truth.compile_s,
        "samples_per_s": config.effective_batch_size / step_s,
        "relative_error": 0.01,
        "compute_s": truth.compute_s * config.grad_accum_steps,
        "optimizer_s": truth.optimizer_s,
        "data_wait_s": step_s - truth.compute_s * config.grad_accum_steps - truth.optimizer_s,
        "memory_bytes": int(truth.memory_bytes),
        **changes,
    }
    return Observation(**values)


def out_of_memory() -> Observation:
    return Observation(status="oom", wall_s=1.0, overhead_s=1.0)


def model_of(*configs: TrainConfig, space: Space = SPACE, world: worlds.World = worlds.cpu) -> PerformanceModel:
    model = PerformanceModel(space, cpu_facts())
    model.fit([(config, observed(config, world)) for config in configs])
    return model


def predicted(model: PerformanceModel, *configs: TrainConfig) -> tuple[list[float], list[float]]:
    prediction = model.predict(model.encoding.encode(configs))
    return np.exp(prediction.mean).tolist(), prediction.doubt.tolist()


def truly(config: TrainConfig, world: worlds.World = worlds.cpu) -> float:
    return config.effective_batch_size / world(config).step_s(config)


def test_one_trial_predicts_every_accumulation_count() -> None:
    model = model_of(HERE)
    others = [HERE.replace(grad_accum_steps=count) for count in (2, 4)]
    speeds, doubts = predicted(model, *others)
    assert speeds == pytest.approx([truly(config) for config in others], rel=0.02)
    assert max(doubts) < 0.1


def test_a_few_batch_sizes_predict_the_curve() -> None:
    model = model_of(*(HERE.replace(micro_batch_size=size) for size in (4, 16, 128)))
    between = [HERE.replace(micro_batch_size=size) for size in (8, 32, 64)]
    assert predicted(model, *between)[0] == pytest.approx([truly(config) for config in between], rel=0.06)


def test_what_knobs_do_carries_over_to_other_batch_sizes() -> None:
    faster = HERE.replace(amp_dtype="bf16", memory_format="channels_last")
    model = model_of(HERE, faster, HERE.replace(micro_batch_size=64))
    asked = faster.replace(micro_batch_size=64)
    assert predicted(model, asked)[0] == pytest.approx([truly(asked)], rel=0.15)


def test_what_nobody_tried_is_uncertain() -> None:
    _, (known, unknown) = predicted(model_of(HERE), HERE, HERE.replace(num_threads=1, amp_dtype="bf16"))
    assert unknown > 4 * known


LOADER_SPACE = build_space(
    parse_spec(worlds.CPU_SPEC | {"search": worlds.CPU_SPEC["search"] | {"num_workers": [0, 1, 2, 4]}}, "."),
    cpu_facts(),
)


def slow_loader(config: TrainConfig) -> worlds.Truth:
    """Decoding takes as long as computing."""
    truth = worlds.cpu(config)
    return worlds.Truth(**{**truth.__dict__, "loading_s": config.micro_batch_size / 300})


def test_a_loader_bound_trial_tells_what_processes_would_gain() -> None:
    here = HERE.replace(num_threads=2)  # which leaves two of the four cores to loading
    model = model_of(here, space=LOADER_SPACE, world=slow_loader)
    alone, shared = predicted(model, here, workers(2, num_threads=2))[0]
    assert 1.3 * alone < shared < 2 * alone


def workers(count: int, **changes: Any) -> TrainConfig:
    return HERE.replace(num_workers=count, prefetch_factor=2, **changes)


def test_a_faster_step_promises_nothing_where_the_loader_is_what_it_waits_for() -> None:
    """One process loads 300 samples a second, however fast the step."""
    model = model_of(workers(1), HERE, space=LOADER_SPACE, world=slow_loader)
    plain, faster = predicted(model, workers(1), workers(1, amp_dtype="bf16", memory_format="channels_last"))[0]
    assert faster < 1.15 * plain


def fits(model: PerformanceModel, *configs: TrainConfig) -> list[float]:
    return model.memory.probability_to_fit(model.encoding.encode(configs)).tolist()


def with_memory(model: PerformanceModel, trials: Sequence[tuple[TrainConfig, Observation]]) -> PerformanceModel:
    model.fit(trials)
    return model


def test_memory_is_a_line_in_the_batch_and_ends_at_the_wall() -> None:
    seen = [(config, observed(config)) for config in (HERE.replace(micro_batch_size=size) for size in (4, 16, 64))]
    tight = cpu_facts()
    tight = tight.model_copy(update={"host": tight.host.model_copy(update={"memory_bytes": int(1.3 * GIB)})})
    model = with_memory(PerformanceModel(SPACE, tight), seen)
    within, beyond = HERE.replace(micro_batch_size=48), HERE.replace(micro_batch_size=128)
    assert worlds.cpu(within).memory_bytes < 1.2 * GIB < worlds.cpu(beyond).memory_bytes
    likely, unlikely = fits(model, within, beyond)
    assert likely > 0.9
    assert unlikely < 0.1


def test_a_failure_rules_out_all_that_needs_no_less() -> None:
    seen = [(HERE, observed(HERE)), (HERE.replace(micro_batch_size=64), out_of_memory())]
    model = with_memory(PerformanceModel(SPACE, cpu_facts()), seen)
    chances = fits(
        model,
        HERE.replace(micro_batch_size=64, grad_accum_steps=4),
        HERE.replace(micro_batch_size=96),
        HERE.replace(micro_batch_size=128, memory_format="channels_last"),
        HERE.replace(micro_batch_size=8),
    )
    assert chances[:3] == [0.0, 0.0, 0.0]
    assert chances[3] > 0.9
    assert model.memory.wall_bytes is not None


def test_the_more_trials_ran_out_of_memory_the_less_is_risked() -> None:
    risks = []
    for failures in range(4):
        sizes = (128, 96, 64)[:failures]
        seen = [(HERE, observed(HERE)), *((HERE.replace(micro_batch_size=size), out_of_memory()) for size in sizes)]
        risks.append(with_memory(PerformanceModel(SPACE, cpu_facts()), seen).memory.least_probability)
    assert risks == sorted(risks)
    assert risks[0] < risks[2] == risks[3]


def test_a_compilation_costs_what_it_cost_before() -> None:
    compiled = HERE.replace(compile="default")
    model = PerformanceModel(SPACE, cpu_facts())
    step_s = np.array([0.1, 0.1])
    model.fit([(HERE, observed(HERE))])
    plain_s, guessed_s = model.costs.seconds([HERE, compiled], step_s)
    assert guessed_s > plain_s + 20
    model.fit([(HERE, observed(HERE)), (compiled, observed(compiled, first_step_s=4.0))])
    assert model.costs.seconds([compiled], step_s[:1])[0] < plain_s + 12


def test_what_ran_out_rules_out_the_same_with_other_threads_and_nothing_that_may_need_less() -> None:
    model = PerformanceModel(SPACE, cpu_facts())
    large = HERE.replace(micro_batch_size=128)
    failed = Observation(status="oom", wall_s=1.0, overhead_s=1.0)
    model.fit([(HERE, observed(HERE)), (large, failed)])
    same = large.replace(num_threads=1, grad_accum_steps=4)
    other = large.replace(amp_dtype="bf16")
    chances = model.memory.probability_to_fit(model.encoding.encode([large, same, other]))
    assert chances[0] == chances[1] == 0.0
    assert chances[2] > 0.0


def test_a_constraint_on_a_measure_is_learnt() -> None:
    model = PerformanceModel(SPACE, cpu_facts())
    trials = [(config, observed(config)) for config in (HERE.replace(micro_batch_size=size) for size in (4, 16, 64))]
    model.fit(trials, [[seen.memory_bytes / (0.8 * GIB) - 1] for _, seen in trials if seen.memory_bytes])
    chances = model.limits.probability_to_meet(
        model.encoding.encode([HERE.replace(micro_batch_size=8), HERE.replace(micro_batch_size=128)])
    )
    assert chances[0] > 0.8
    assert chances[1] < 0.2


def test_skill_is_high_where_the_physics_holds_and_low_where_all_is_chance() -> None:
    tried = [config for config in SPACE.configurations() if config.grad_accum_steps == 1][::4]
    lucky = worlds.with_interactions(worlds.cpu, 1.5)
    assert model_of(*tried).skill() > 0.95
    assert model_of(*tried, world=lucky).skill() < 0.6


def test_what_it_learned_says_what_each_knob_would_do() -> None:
    best = HERE.replace(amp_dtype="bf16", micro_batch_size=128)
    model = model_of(HERE, best, HERE.replace(num_threads=1), HERE.replace(micro_batch_size=4))
    said = learned(model, SPACE, best)
    amp = next(effect for effect in said["effects"] if effect["set"] == {"amp_dtype": "none"})
    assert amp["instead_of"] == {"amp_dtype": "bf16"}
    assert 0.5 < amp["ratio"] < 0.9
    assert amp["ci95"][0] < amp["ratio"] < amp["ci95"][1]
    assert any(line.startswith("one process loads") for line in said["facts"])


def test_on_an_accelerator_loading_hides_behind_computing() -> None:
    """Ten milliseconds a sample to load, six to compute: half the computing would gain nothing."""
    space = build_space(parse_spec(worlds.GPU_SPEC, "."), cuda_facts())
    model = PerformanceModel(space, cuda_facts())

    def slow(config: TrainConfig) -> worlds.Truth:
        batch = config.micro_batch_size
        compute_s = batch * (0.003 if config.amp_dtype == "bf16" else 0.006)
        return worlds.Truth(
            compute_s=compute_s, loading_s=0.01 * batch, optimizer_s=1e-4, memory_bytes=4 * GIB, overlaps=True
        )

    plain = space.baseline
    assert plain.num_workers == 0
    model.fit([(plain, observed(plain, slow))])
    amp = plain.replace(amp_dtype="bf16")
    speeds, _ = predicted(model, plain, amp)
    assert speeds == pytest.approx([100, 100], rel=0.15)


def test_a_comparison_is_surer_than_its_two_sides() -> None:
    """What nobody knows about both cancels out."""
    model = model_of(HERE)
    one, other = (HERE.replace(micro_batch_size=size, amp_dtype="bf16") for size in (64, 48))
    _, doubts = predicted(model, one, other)
    ratio, doubt = model.compare(one, other)
    assert abs(ratio) < 0.2
    assert doubt < 0.5 * min(doubts)


def test_what_the_parts_do_not_explain_of_a_trial_is_its_own() -> None:
    """All parts are as fast as expected, and one whole is 20 % slower: so it is, beside any other."""
    configs = [HERE.replace(micro_batch_size=size) for size in (4, 8, 16, 32)]
    slow, untried = configs[2], HERE.replace(micro_batch_size=64)
    trials = [(config, observed(config, relative_error=0.001)) for config in configs]
    as_expected = model_of(*configs).compare(slow, configs[3])
    trials[2] = slow, observed(slow, samples_per_s=0.8 * truly(slow), relative_error=0.001)
    model = PerformanceModel(SPACE, cpu_facts())
    model.fit(trials)
    found = model.compare(slow, configs[3])
    assert found[0] - as_expected[0] == pytest.approx(np.log(0.8), abs=0.07)
    assert model.compare(slow, untried)[1] > as_expected[1], "others may have as much of their own"


def test_the_fastest_of_many_trials_was_lucky() -> None:
    """Two layouts that differ as much at every size, but for one run: it is not believed to be 25 % faster."""
    sizes, layouts = (4, 8, 16, 32), ("contiguous", "channels_last")
    configs = [HERE.replace(micro_batch_size=size, memory_format=layout) for size in sizes for layout in layouts]
    lucky = configs[5]
    fast = {"samples_per_s": 1.25 * truly(lucky), "compute_s": observed(lucky).compute_s / 1.25}
    model = PerformanceModel(SPACE, cpu_facts())
    model.fit([(config, observed(config, **(fast if config == lucky else {}))) for config in configs])
    assert model.likely(lucky) < np.log(1.2 * truly(lucky))
    assert model.likely(lucky) > np.log(truly(lucky))
