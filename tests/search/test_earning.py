"""Settings that gain nothing are left out, and what each of the others gains is shown."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from support.bench import Bench
from support.facts import cuda_facts
from support.simulation import good_sense

from autotune.config import TrainConfig
from autotune.records import SEARCHING
from autotune.search import Space, build_space
from autotune.search.earning import (
    Gain,
    grouped,
    is_as_good,
    is_part,
    settings,
    simpler_form,
    simplest,
    simplest_as_good,
    still_simpler,
    strengths,
    together,
)
from autotune.spec import parse_spec
from autotune.stats import TIE, Interval

_SPEC: dict[str, Any] = {
    "model": {"timm": "resnet50"},
    "data": {"synthetic": {"image_size": 64, "samples": 4096}},
    "budget": "5m",
    "baseline": {"micro_batch_size": 32, "num_workers": 0},
    "search": {
        "micro_batch_size": [16, 32, 64],
        "grad_accum_steps": [1, 2, 4],
        "amp_dtype": ["none", "bf16"],
        "pin_memory": [False, True],
        "num_workers": [0, 2, 4],
        "prefetch_factor": [2, 4],
        "memory_format": ["contiguous", "channels_last"],
        "activation_checkpointing": [False, True],
    },
}
RICHEST = TrainConfig(
    micro_batch_size=64,
    amp_dtype="bf16",
    pin_memory=True,
    num_workers=4,
    prefetch_factor=4,
    memory_format="channels_last",
    activation_checkpointing=True,
)


def space_of(**sections: Any) -> Space:
    return build_space(parse_spec(_SPEC | sections, "."), cuda_facts())


SPACE = space_of()


def speed(config: TrainConfig) -> float:
    """Layout pays with low precision only, and takes 2 % without; pinning, checkpointing and a third and fourth loader
    process do next to nothing."""
    found = 100.0 * (config.micro_batch_size / 32) ** 0.2
    if config.amp_dtype == "bf16":
        found *= 1.5 * (1.2 if config.memory_format == "channels_last" else 1.0)
    elif config.memory_format == "channels_last":
        found *= 0.98
    found *= {0: 1.0, 2: 1.3, 4: 1.304}[config.num_workers]
    return found * (1.002 if config.pin_memory else 1.0) * (1.001 if config.activation_checkpointing else 1.0)


def by_formula(one: TrainConfig, other: TrainConfig) -> Gain:
    return Gain(speed(one) / speed(other), None, "model")


def test_what_gains_less_than_one_percent_is_left_out() -> None:
    found = simplest(RICHEST, SPACE, by_formula)
    assert found.differences(RICHEST).keys() == {"pin_memory", "activation_checkpointing", "num_workers"}
    assert found.num_workers == 2, "more gain 0.3 %"
    assert speed(RICHEST) < 1.01 * speed(found)


def test_a_setting_that_another_one_needs_stays() -> None:
    """bf16 by itself would gain 50 %; the layout pays only beside it, and neither goes."""
    found = simplest(RICHEST, SPACE, by_formula)
    assert (found.amp_dtype, found.memory_format) == ("bf16", "channels_last")


def test_many_small_losses_do_not_add_up_to_a_large_one() -> None:
    def each_half_a_percent(one: TrainConfig, other: TrainConfig) -> Gain:
        def changed(config: TrainConfig) -> int:
            return len(config.differences(SPACE.baseline)) + config.num_workers

        return Gain(1.004 ** (changed(one) - changed(other)), None, "model")

    found = simplest(RICHEST, SPACE, each_half_a_percent)
    assert each_half_a_percent(RICHEST, found).ratio < 1.01
    assert len(RICHEST.differences(found)) == 2


def test_nothing_to_gain_is_the_baseline() -> None:
    assert simplest(RICHEST, SPACE, lambda _one, _other: Gain(1.0, None, "model")) == SPACE.baseline


def test_the_baseline_has_nothing_to_leave_out() -> None:
    assert simplest(SPACE.baseline, SPACE, by_formula) == SPACE.baseline
    assert settings(SPACE.baseline, [], SPACE, by_formula) == ()


def test_what_the_constraints_forbid_is_not_proposed() -> None:
    space = space_of(constraints=["pin_memory == true or num_workers == 0"])
    found = simplest(RICHEST, space, by_formula)
    assert space.allows(found)
    assert found.pin_memory


def test_the_fixed_effective_batch_size_holds() -> None:
    space = space_of(training={"effective_batch_size": 64})
    rich = space.complete(RICHEST.replace(micro_batch_size=16, grad_accum_steps=4))
    found = simplest(rich, space, by_formula)
    assert found.effective_batch_size == 64
    assert found.micro_batch_size == 32


def test_each_setting_with_its_gain_the_largest_first() -> None:
    emitted = simplest(RICHEST, SPACE, by_formula)
    shown = settings(emitted, [RICHEST], SPACE, by_formula)
    gains = {" ".join(setting.changes): setting.gain.ratio for setting in shown if setting.kept and setting.gain}
    assert list(gains) == ["amp_dtype", "num_workers prefetch_factor", "memory_format", "micro_batch_size"]
    assert gains["memory_format"] == pytest.approx(1.2)
    assert gains["amp_dtype"] == pytest.approx(1.8 / 0.98)
    (left,) = (setting for setting in shown if not setting.kept)
    unneeded = {"pin_memory", "activation_checkpointing", "num_workers"}
    assert left.changes.keys() == unneeded, "together, as they were measured"
    assert left.gain is not None
    assert left.gain.ratio == pytest.approx(1.002 * 1.001 * 1.304 / 1.3)


def test_as_the_document_states_it() -> None:
    emitted = simplest(RICHEST, SPACE, by_formula)
    pinned = emitted.replace(pin_memory=True)
    (found,) = (one for one in settings(emitted, [pinned], SPACE, by_formula) if not one.kept)
    assert found.to_dict() == {
        "set": {"pin_memory": True},
        "instead_of": {"pin_memory": False},
        "gain": 0.002,
        "ci95": None,
        "source": "model",
        "known": False,
        "kept": False,
    }


def test_what_the_spec_does_not_let_the_search_leave_out_is_no_gain_of_the_search() -> None:
    space = space_of(search={**_SPEC["search"], "memory_format": ["channels_last"]})

    def of_layout(one: TrainConfig, other: TrainConfig) -> Gain:
        return Gain(0.9 if one.memory_format != other.memory_format else 1.5, None, "model")

    assert simplest(RICHEST, space, of_layout).memory_format == "channels_last"
    (stated,) = (one.to_dict() for one in settings(RICHEST, [], space, by_formula) if "memory_format" in one.changes)
    assert (stated["gain"], stated["source"], stated["kept"]) == (None, "spec", True)


def test_pairs_go_together_where_both_change() -> None:
    assert grouped(["amp_dtype", "num_workers", "prefetch_factor"]) == [
        ("num_workers", "prefetch_factor"),
        ("amp_dtype",),
    ]
    assert grouped(["num_workers", "amp_dtype"]) == [("num_workers",), ("amp_dtype",)]


@pytest.mark.parametrize("strategy", ["random", "auto"])
def test_the_search_tries_the_best_without_what_does_nothing(strategy: str, tmp_path: Path) -> None:
    """On this machine a fused optimizer gains nothing; what the search finds by chance has one, or has not."""
    bench = Bench(tmp_path)
    bench.search(bench.backend(seed=1), strategy={"name": strategy, "seed": 5}, budget="5m")
    trials = [record.result.config for record in bench.folder.read_trials() if record.purpose in SEARCHING]
    baseline = trials[0]
    fastest = max(trials, key=good_sense)
    as_fast = [config for config in trials if good_sense(config) == good_sense(fastest)]
    assert any("fused_optimizer" in config.differences(baseline) for config in as_fast)
    assert any("fused_optimizer" not in config.differences(baseline) for config in as_fast[-3:])


BF16 = SPACE.baseline.replace(amp_dtype="bf16")
PINNED = BF16.replace(pin_memory=True)
UNSURE = Gain(1.1, Interval(0.8, 1.5), "model")


def unsure(_one: TrainConfig, _other: TrainConfig) -> Gain:
    return UNSURE


@pytest.mark.parametrize(
    ("simple", "expected"),
    [
        (BF16, True),
        (PINNED, False),
        (SPACE.baseline, False),
        (SPACE.baseline.replace(pin_memory=True), True),
        (BF16.replace(micro_batch_size=64), False),
    ],
)
def test_a_part_has_no_setting_of_its_own(simple: TrainConfig, expected: bool) -> None:
    assert is_part(simple, PINNED, SPACE.baseline) is expected


def test_what_was_measured_to_be_as_fast_takes_the_finalists_place_whatever_the_model_expects() -> None:
    assert simpler_form(PINNED, {PINNED: 200.0, BF16: 199.0}, SPACE.baseline, unsure) == BF16


def test_what_is_clearly_slower_by_both_does_not() -> None:
    assert simpler_form(PINNED, {PINNED: 200.0, BF16: 180.0}, SPACE.baseline, unsure) == PINNED


def test_what_is_no_part_of_it_does_not() -> None:
    other = BF16.replace(memory_format="channels_last")
    clear = Gain(1.5, Interval(1.4, 1.6), "model")
    assert simpler_form(PINNED, {PINNED: 200.0, other: 210.0}, SPACE.baseline, lambda _one, _other: clear) == PINNED


def tie_or_not(ratio: float, low: float, high: float) -> Gain:
    return Gain(ratio, Interval(low, high), "measured")


@pytest.mark.parametrize(
    ("measured", "known", "expected"),
    [
        pytest.param(None, tie_or_not(1.002, 0.9, 1.1), True, id="expected to gain less"),
        pytest.param(tie_or_not(1.001, 0.9, 1.1), tie_or_not(1.03, 0.98, 1.08), True, id="open, measured as good"),
        pytest.param(tie_or_not(1.001, 0.7, 1.4), tie_or_not(1.08, 0.93, 1.26), False, id="expected to cost 8 %"),
        pytest.param(tie_or_not(1.02, 0.9, 1.1), tie_or_not(1.03, 0.98, 1.08), False, id="open, measured as slower"),
        pytest.param(None, tie_or_not(1.03, 0.98, 1.08), False, id="open, not measured"),
        pytest.param(tie_or_not(1.0, 0.9, 1.1), tie_or_not(1.03, 1.02, 1.04), False, id="known to gain"),
    ],
)
def test_the_simpler_is_as_good_unless_the_richer_seems_to_gain(
    measured: Gain | None, known: Gain, expected: bool
) -> None:
    assert is_as_good(measured, known) is expected


def test_the_strongest_is_the_one_that_wins_its_pairs() -> None:
    def compare(one: TrainConfig, other: TrainConfig) -> Gain:
        ratio = speed(one) / speed(other)
        return tie_or_not(ratio, ratio / 1.1, ratio * 1.1)

    found = strengths([SPACE.baseline, BF16, PINNED], compare)
    assert found[PINNED] - found[SPACE.baseline] == pytest.approx(math.log(speed(PINNED) / speed(SPACE.baseline)))
    assert sum(found.values()) == pytest.approx(0.0)


@pytest.mark.parametrize(("width", "strongest"), [(1.1, BF16), (10.0, PINNED)])
def test_of_pairs_that_contradict_each_other_the_better_known_counts_more(width: float, strongest: TrainConfig) -> None:
    """`PINNED` is 2 % faster than `BF16`; beside the baseline, which is known less well, `BF16` looks 20 % faster."""
    ratios = {(PINNED, BF16): 1.02, (BF16, SPACE.baseline): 1.5, (PINNED, SPACE.baseline): 1.25}

    def compare(one: TrainConfig, other: TrainConfig) -> Gain:
        ratio = ratios[one, other] if (one, other) in ratios else 1 / ratios[other, one]
        spread = 1.1 if SPACE.baseline not in {one, other} else width
        return tie_or_not(ratio, ratio / spread, ratio * spread)

    found = strengths([SPACE.baseline, BF16, PINNED], compare)
    assert max(found, key=found.__getitem__) == strongest


def test_a_gain_is_known_where_the_interval_lies_on_one_side_of_one_percent() -> None:
    assert tie_or_not(1.03, TIE, 1.05).is_known
    assert tie_or_not(1.0, 0.99, 1.009).is_known
    assert not tie_or_not(1.02, 1.0, 1.04).is_known
    assert not Gain(1.5, None, "model").is_known


def test_the_simplest_as_good_is_found_step_by_step() -> None:
    """From the richest over what is as good as it; each step is a part of the one before."""
    middle = RICHEST.replace(activation_checkpointing=False)
    simple = middle.replace(pin_memory=False)
    steps = {(RICHEST, middle), (middle, simple)}
    found = simplest_as_good(RICHEST, [RICHEST, middle, simple], SPACE.baseline, lambda *pair: pair in steps)
    assert found == simple
    assert simplest_as_good(RICHEST, [RICHEST, simple], SPACE.baseline, lambda *pair: pair in steps) == RICHEST


def test_what_is_still_to_be_measured_has_the_fewest_settings_first() -> None:
    """Layout is expected to gain 20 %, give or take 15; pinning nothing."""

    def compare(one: TrainConfig, other: TrainConfig) -> Gain:
        ratio = speed(one) / speed(other)
        return Gain(ratio, Interval(ratio / 1.35, ratio * 1.35), "model")

    leader = BF16.replace(pin_memory=True, memory_format="channels_last")
    first = still_simpler(leader, lambda _: True, SPACE, compare)
    assert first == BF16
    second = still_simpler(leader, lambda config: config != BF16, SPACE, compare)
    assert second == leader.replace(pin_memory=False)
    assert still_simpler(leader, lambda config: config not in {BF16, second}, SPACE, compare) is None


def test_where_the_simplest_was_measured_what_lies_between_is_still_to_be() -> None:
    def compare(one: TrainConfig, other: TrainConfig) -> Gain:
        ratio = 1.5 if other.amp_dtype == "none" else 1.002
        return Gain(ratio, Interval(ratio / 1.001, ratio * 1.001), "model")

    leader = BF16.replace(pin_memory=True, memory_format="channels_last")
    between = still_simpler(leader, lambda config: config != BF16, SPACE, compare)
    assert between is not None
    assert len(between.differences(BF16)) == 1


def test_a_precise_measurement_overrules_the_model() -> None:
    found = together(Gain(1.002, Interval(1.001, 1.003), "measured"), UNSURE)
    assert found.ratio == pytest.approx(1.002, abs=0.001)
    assert found.source == "measured"


def test_a_noisy_measurement_leaves_it_to_a_model_that_is_sure() -> None:
    found = together(Gain(1.15, Interval(0.8, 1.6), "measured"), Gain(1.0, Interval(0.99, 1.01), "model"))
    assert found.ratio < 1.01
    assert found.source == "model"


def test_both_together_know_more_than_either() -> None:
    one, other = Gain(1.1, Interval(1.0, 1.21), "measured"), Gain(1.0, Interval(0.91, 1.1), "model")
    found = together(one, other)
    assert found.interval is not None
    assert 1.0 < found.ratio < 1.1
    assert found.interval.high / found.interval.low < 1.21


def test_what_does_nothing_is_not_emitted_and_what_does_is_shown(tmp_path: Path) -> None:
    """Pinning and checkpointing do nothing on this machine; the old search emitted whichever the noise preferred."""
    bench = Bench(tmp_path)
    backend = bench.backend(lambda config: 200.0 if config.amp_dtype == "bf16" else 100.0, noise=0.001)
    best = bench.search(backend, budget="5m").best
    emitted, baseline = (TrainConfig.from_dict(values) for values in (best["config"], best["baseline"]["config"]))
    assert emitted.differences(baseline).keys() == {"amp_dtype"}
    (amp,) = (entry for entry in best["settings"] if entry["kept"])
    assert amp["set"] == {"amp_dtype": "bf16"}
    assert amp["source"] == "measured"
    assert amp["gain"] == pytest.approx(1.0, abs=0.02)
    assert any(not entry["kept"] for entry in best["settings"])
