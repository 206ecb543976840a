"""The verdict: what is emitted once the rounds are over. On a machine without noise, but for what a test adds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from search.test_confirming import SPACE
from support.bench import BUDGET_S, Bench
from support.facts import cpu_facts
from support.simulation import Training

from autotune.config import TrainConfig
from autotune.records import Failure, Purpose, TrialRecord, TrialRequest, TrialResult, TrialStatus
from autotune.search import Interrupted, Listener
from autotune.search.figures import samples_per_s

SOAK_STEPS = 20
NAN = "the loss is nan at optimizer step 12"


def speed(config: TrainConfig) -> float:
    """1000 samples/s for the baseline: 128 ms a step."""
    return 1000.0 * (1 + config.num_workers / 4) * (2.0 if config.amp_dtype == "bf16" else 1.0)


def is_soak(request: TrialRequest) -> bool:
    return request.time_limit_s == 0 and request.min_steps > 0


def diverging_soak(which: Callable[[TrainConfig], bool]) -> Training:
    def training(request: TrialRequest, result: TrialResult) -> TrialResult:
        if not (is_soak(request) and which(request.config)):
            return result
        failure = Failure(reason=NAN)
        return result.model_copy(update={"status": TrialStatus.DIVERGED, "failure": failure})

    return training


def interrupt_after_soak(record: TrialRecord) -> None:
    if record.purpose is Purpose.SOAK:
        raise KeyboardInterrupt


def of_purpose(bench: Bench, purpose: Purpose) -> list[TrialRecord]:
    return [record for record in bench.folder.read_trials() if record.purpose is purpose]


def check_of(best: dict[str, Any], name: str) -> dict[str, Any]:
    return next(check for check in best["stability"]["checks"] if check["name"] == name)


def all_but(bench: Bench, seconds: float, *, after_runs: int) -> Listener:
    """The machine sleeps after so many runs of the confirmation, until only `seconds` of the budget are left."""

    def on_trial(record: TrialRecord) -> None:
        if record.purpose is Purpose.CONFIRM and len(of_purpose(bench, Purpose.CONFIRM)) == after_runs:
            bench.clock.advance(BUDGET_S - 1 - record.elapsed_s - seconds)

    return Listener(on_trial=on_trial)


def test_what_fails_its_soak_is_not_emitted_but_the_next_best_is(bench: Bench) -> None:
    backend = bench.backend(speed, noise=0.0, training=diverging_soak(lambda config: config.num_workers == 4))
    best = bench.search(backend, search=SPACE | {"num_workers": [0, 2, 4]}).best
    assert [record.result.config.num_workers for record in of_purpose(bench, Purpose.SOAK)] == [4, 2]
    assert best["config"]["num_workers"] == 2
    assert best["stability"]["verdict"] == "stable"
    assert check_of(best, "soak")["passed"]
    assert check_of(best, "soak_throughput")["passed"]
    (refused,) = best["stability"]["refused"]
    assert refused["config"]["num_workers"] == 4
    assert [check["detail"] for check in refused["checks"]] == [NAN]


def test_where_everything_fails_its_soak_the_baseline_stands_and_it_is_said_why(bench: Bench) -> None:
    backend = bench.backend(speed, noise=0.0, training=diverging_soak(lambda _config: True))
    result = bench.search(backend, search=SPACE)
    assert result.best["config"] == result.best["baseline"]["config"]
    assert result.notes[0].startswith("No configuration that passed the stability tests was reliably faster")
    assert "your training fails with the baseline settings, after " in result.notes[0]
    assert any(
        note.startswith("Not chosen because it failed a stability test: ") and NAN in note for note in result.notes
    )


def test_a_soak_that_failed_in_an_earlier_session_has_failed(bench: Bench) -> None:
    backend = bench.backend(speed, noise=0.0, training=diverging_soak(lambda _config: True))
    with pytest.raises(Interrupted):
        bench.search(backend, search=SPACE, on=Listener(on_trial=interrupt_after_soak))
    best = bench.search(bench.backend(speed, noise=0.0), search=SPACE).best
    assert best["config"] == best["baseline"]["config"]
    assert [record.result.config.num_workers for record in of_purpose(bench, Purpose.SOAK)] == [2, 0]


def test_a_baseline_that_stands_is_soaked_too(bench: Bench) -> None:
    best = bench.search(bench.backend(lambda _config: 1000.0, noise=0.0), search=SPACE).best
    assert best["config"] == best["baseline"]["config"]
    assert best["stability"]["verdict"] == "stable"
    assert check_of(best, "soak")["passed"]
    assert check_of(best, "soak_throughput")["passed"]
    assert best["speedup"]["ratio"] == 1.0


def test_a_baseline_that_fails_its_soak_is_not_called_stable(bench: Bench) -> None:
    backend = bench.backend(lambda _config: 1000.0, noise=0.0, training=diverging_soak(lambda _config: True))
    best = bench.search(backend, search=SPACE).best
    assert best["config"] == best["baseline"]["config"]
    assert best["stability"]["verdict"] == "unconfirmed"
    assert check_of(best, "soak")["detail"] == NAN


def test_the_figure_of_a_baseline_that_its_soak_contradicts_is_that_of_the_soak(bench: Bench) -> None:
    backend = bench.backend(lambda _config: 1000.0, noise=0.0, training=slower_soak(3.0))
    best = bench.search(backend, search=SPACE).best
    assert best["config"] == best["baseline"]["config"]
    assert best["stability"]["verdict"] == "unconfirmed"
    assert best["measured"]["samples_per_s"] == pytest.approx(1000 / 3, rel=0.02)
    assert best["baseline"]["samples_per_s"] == best["measured"]["samples_per_s"]
    assert best["speedup"]["ratio"] == 1.0


def test_what_its_soak_has_refused_does_not_stand_when_the_next_soak_is_interrupted(bench: Bench) -> None:
    def interrupt_after_two(record: TrialRecord) -> None:
        if len(of_purpose(bench, Purpose.SOAK)) == 2:
            raise KeyboardInterrupt

    three = SPACE | {"num_workers": [0, 2, 4]}
    backend = bench.backend(speed, noise=0.0, training=diverging_soak(lambda config: config.num_workers == 4))
    with pytest.raises(Interrupted) as caught:
        bench.search(backend, search=three, on=Listener(on_trial=interrupt_after_two))
    assert caught.value.result is not None
    best = caught.value.result.best
    assert best["config"]["num_workers"] == 2
    assert [refused["config"]["num_workers"] for refused in best["stability"]["refused"]] == [4]
    bench.search(bench.backend(speed, noise=0.0), search=three)
    assert len(of_purpose(bench, Purpose.SOAK)) == 2, "neither is run again"


def test_a_soak_that_hangs_refuses(bench: Bench) -> None:
    """Ended long before the budget is: one rank waits for another."""

    def hangs(request: TrialRequest, result: TrialResult) -> TrialResult:
        if not is_soak(request):
            return result
        failure = Failure(reason="rank 1 hangs after optimizer step 5")
        return result.model_copy(update={"status": TrialStatus.TIMEOUT, "failure": failure})

    best = bench.search(bench.backend(speed, noise=0.0, training=hangs), search=SPACE).best
    assert best["config"] == best["baseline"]["config"]
    assert "rank 1 hangs" in best["stability"]["refused"][0]["checks"][0]["detail"]


def test_a_soak_that_fails_as_the_budget_ends_has_failed_all_the_same(bench: Bench) -> None:
    def oversleep(record: TrialRecord) -> None:
        if record.purpose is Purpose.SOAK:
            bench.clock.advance(BUDGET_S)

    backend = bench.backend(speed, noise=0.0, training=diverging_soak(lambda _config: True))
    best = bench.search(backend, search=SPACE, on=Listener(on_trial=oversleep)).best
    assert best["config"] == best["baseline"]["config"]


def slower_soak(factor: float) -> Training:
    """The soak takes so many times as long as short runs let expect: they measured queued batches."""

    def training(request: TrialRequest, result: TrialResult) -> TrialResult:
        if not is_soak(request):
            return result
        blocks = [block.model_copy(update={"seconds": factor * block.seconds}) for block in result.blocks]
        return result.model_copy(update={"blocks": tuple(blocks)})

    return training


def test_what_the_soak_contradicts_is_not_emitted_as_a_figure(bench: Bench) -> None:
    """Confirmed 1.5 times as fast as the baseline; when it trains on, 1.07 times."""
    backend = bench.backend(speed, noise=0.0, busy=0.0, training=slower_soak(1.4))
    result = bench.search(backend, search=SPACE)
    best = result.best
    assert best["measured"]["samples_per_s"] == pytest.approx(1500 / 1.4, rel=1e-3)
    assert best["speedup"]["ratio"] == pytest.approx(1.5 / 1.4, rel=1e-3)
    low, high = best["speedup"]["ci95"]
    assert 1 < low < 1.5 / 1.4 < high < 1.1
    assert best["measured"]["samples_per_s_ci95"][1] < 1.1 * 1000
    assert best["speedup"]["outcome"] == "faster"
    assert best["stability"]["verdict"] == "unconfirmed"
    check = check_of(best, "soak_throughput")
    assert not check["passed"]
    assert check["detail"] == "1,071 samples/s in the soak, 1,500 in the confirming runs"
    assert "The throughput in best.yaml and the speed-up are those of the long run (soak)" in result.notes[0]


def test_what_is_slower_than_the_baseline_in_its_soak_is_refused(bench: Bench) -> None:
    """As on the first GPU: confirmed much faster, and 1.8 times slower when it trained on."""
    backend = bench.backend(speed, noise=0.0, busy=0.0, training=slower_soak(1.8))
    best = bench.search(backend, search=SPACE).best
    assert best["config"] == best["baseline"]["config"]
    (refused,) = best["stability"]["refused"]
    assert [check["name"] for check in refused["checks"]] == ["soak_throughput"]


def test_a_soak_that_is_faster_than_what_was_confirmed_contradicts_it_as_well(bench: Bench) -> None:
    backend = bench.backend(speed, noise=0.0, busy=0.0, training=slower_soak(0.8))
    best = bench.search(backend, search=SPACE).best
    assert best["measured"]["samples_per_s"] == pytest.approx(1500 / 0.8, rel=1e-3)
    assert best["speedup"]["ratio"] == pytest.approx(1.5 / 0.8, rel=1e-3)
    assert best["stability"]["verdict"] == "unconfirmed"


def test_a_soak_that_leaves_it_open_whether_the_baseline_is_faster_refuses(bench: Bench) -> None:
    """On a machine whose runs differ by 5 %, the soak is 1 % faster than the baseline."""
    backend = bench.backend(speed, noise=0.05, busy=0.0, training=slower_soak(1.5 / 1.01))
    best = bench.search(backend, search=SPACE).best
    assert best["config"] == best["baseline"]["config"]


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_a_soak_as_fast_as_one_run_may_be_by_chance_contradicts_nothing(bench: Bench, seed: int) -> None:
    """Runs differ by 8 % here, and the soak is slower by 8 % or so."""
    backend = bench.backend(speed, noise=0.08, busy=0.0, seed=seed, training=slower_soak(1.08))
    best = bench.search(backend, search=SPACE).best
    assert best["measured"]["samples_per_s"] == pytest.approx(1500, rel=0.08)
    assert check_of(best, "soak_throughput")["passed"]
    assert best["stability"]["verdict"] == "stable"


def test_a_soak_that_an_earlier_session_passed_is_not_run_again(bench: Bench) -> None:
    with pytest.raises(Interrupted):
        bench.search(bench.backend(speed, noise=0.0), search=SPACE, on=Listener(on_trial=interrupt_after_soak))
    later = bench.backend(speed, noise=0.0)
    best = bench.search(later, search=SPACE).best
    assert later.requests == []
    assert check_of(best, "soak")["passed"]
    assert best["stability"]["verdict"] == "stable"


@pytest.mark.parametrize("samples", [50 * 128, 50 * 128 + 1, 50 * 128 + 127])
def test_a_soak_trains_at_least_one_step_of_a_second_epoch(bench: Bench, samples: int) -> None:
    """Also where the first ends with a batch that is not full, which is a step of its own."""
    backend = bench.backend(speed, noise=0.0, facts=cpu_facts(dataset_samples=samples))
    bench.search(backend, search=SPACE)
    (steps,) = [request.min_steps for request in backend.requests if is_soak(request)]
    assert math.ceil(samples / 128) < steps <= math.ceil(samples / 128) + 2


@pytest.mark.parametrize("samples", [1_000_000, 128, None])
def test_a_soak_trains_the_steps_of_the_spec_where_an_epoch_is_long_short_or_endless(
    bench: Bench, samples: int | None
) -> None:
    backend = bench.backend(speed, noise=0.0, facts=cpu_facts(dataset_samples=samples))
    bench.search(backend, search=SPACE)
    assert [request.min_steps for request in backend.requests if is_soak(request)] == [SOAK_STEPS]


def test_a_soak_that_agrees_counts_for_the_throughput_and_not_for_the_ratio(bench: Bench) -> None:
    """Rounds at 1500 samples/s, and a soak that is 4 % slower, as much as one run may be here."""

    def in_soak(config: TrainConfig) -> float:
        swing = 1.03 if backend.requests[-1].seed % 2 else 0.97
        return speed(config) * (0.96 if is_soak(backend.requests[-1]) else swing)

    backend = bench.backend(in_soak, noise=0.0)
    best = bench.search(backend, search=SPACE, on=all_but(bench, 8.0, after_runs=2 * 3)).best
    assert check_of(best, "soak_throughput")["passed"]
    runs = [record.result for record in of_purpose(bench, Purpose.CONFIRM) if record.result.config.num_workers]
    of_rounds = math.exp(math.fsum(math.log(samples_per_s(run)) for run in runs) / len(runs))
    (soaked,) = (samples_per_s(record.result) for record in of_purpose(bench, Purpose.SOAK))
    assert soaked < 0.99 * of_rounds
    assert soaked < best["measured"]["samples_per_s"] < 0.998 * of_rounds
    assert best["speedup"]["ratio"] == pytest.approx(1.5, rel=0.002)
    assert best["stability"]["verdict"] == "stable"


def test_where_no_time_is_left_to_test_the_fastest_a_tested_one_is_emitted(bench: Bench) -> None:
    """bf16 is the fastest, and what only loads otherwise needs no reference runs."""
    both = SPACE | {"amp_dtype": ["none", "bf16"]}
    asleep = all_but(bench, 4.0, after_runs=2 * 4)
    best = bench.search(bench.backend(speed, noise=0.0), search=both, on=asleep, use_all=True).best
    confirmed = {record.result.config.amp_dtype for record in of_purpose(bench, Purpose.CONFIRM)}
    assert confirmed == {"none", "bf16"}
    assert of_purpose(bench, Purpose.PROBE) == []
    assert (best["config"]["amp_dtype"], best["config"]["num_workers"]) == ("none", 2)
    assert best["speedup"]["ratio"] == 1.5
    assert best["stability"]["verdict"] == "stable"


def test_a_run_that_takes_far_too_long_takes_no_time_from_the_soak(bench: Bench) -> None:
    """In the third round the machine stands still under the leader: its run is cut short, which is no fault of it."""
    both = SPACE | {"amp_dtype": ["none", "bf16"]}

    def standing_still(config: TrainConfig) -> float | TrialStatus:
        is_hung = backend.requests[-1].seed == 3 and not backend.requests[-1].watch_training
        swing = {1: 1.04, 2: 0.96}.get(backend.requests[-1].seed, 1.0)  # so that there is a third round
        return TrialStatus.TIMEOUT if is_hung and config.amp_dtype == "bf16" else swing * speed(config)

    backend = bench.backend(standing_still, noise=0.0)
    asleep = all_but(bench, 14.0, after_runs=2 * 4)
    best = bench.search(backend, search=both, on=asleep, use_all=True).best
    cut = [record for record in bench.folder.read_trials() if record.result.status is TrialStatus.TIMEOUT]
    assert [(record.purpose, record.cut_short) for record in cut] == [(Purpose.CONFIRM, True)]
    assert best["config"] == cut[0].result.config.to_dict()
    assert best["stability"]["verdict"] == "stable"


def beside_bursts(bench: Bench, is_disturbed: Callable[[TrialRequest], bool]) -> Training:
    """The marked blocks of a run take six times as long, which no figure counts, but they last."""

    def training(request: TrialRequest, result: TrialResult) -> TrialResult:
        if not is_disturbed(request):
            return result
        blocks = tuple(
            block.model_copy(update={"seconds": block.seconds * (6.0 if block.disturbances else 1.0)})
            for block in result.blocks
        )
        longer_s = math.fsum(block.seconds for block in blocks) - math.fsum(block.seconds for block in result.blocks)
        bench.clock.advance(longer_s)
        return result.model_copy(update={"blocks": blocks, "wall_s": result.wall_s + longer_s})

    return training


def test_time_for_the_soak_is_kept_as_long_as_steps_take_beside_other_work(bench: Bench) -> None:
    backend = bench.backend(speed, noise=0.06, busy=0.25, training=beside_bursts(bench, lambda _request: True))
    bench.search(backend, search=SPACE, stability={"soak_steps": 400}, budget="5m")
    soak = of_purpose(bench, Purpose.SOAK)[0]
    assert soak.result.status is TrialStatus.OK
    assert soak.elapsed_s < 300


@pytest.mark.parametrize("diverges", [False, True])
def test_tests_that_had_no_time_are_run_in_what_the_soak_has_left(bench: Bench, *, diverges: bool) -> None:
    """Other work made the search's steps slow, and is over: soak and tests take less than was to be expected."""
    slower = beside_bursts(bench, lambda request: not (request.watch_training or is_soak(request)))

    def training(request: TrialRequest, result: TrialResult) -> TrialResult:
        if diverges and request.watch_training and request.config.amp_dtype == "bf16":
            return result.model_copy(update={"status": TrialStatus.DIVERGED, "failure": Failure(reason=NAN)})
        return slower(request, result)

    backend = bench.backend(speed, noise=0.0, busy=0.25, training=training)
    only_bf16 = {"amp_dtype": ["none", "bf16"], "num_workers": [0]}
    best = bench.search(backend, search=SPACE | only_bf16, on=all_but(bench, 10.0, after_runs=2 * 2)).best
    in_order = [record.purpose for record in bench.folder.read_trials()]
    assert in_order.index(Purpose.SOAK) < in_order.index(Purpose.PROBE)
    assert best["config"]["amp_dtype"] == ("none" if diverges else "bf16")
    # No time is left for a soak of the baseline.
    assert best["stability"]["verdict"] == ("unconfirmed" if diverges else "stable")
    assert len(best["stability"]["refused"]) == diverges


@pytest.mark.parametrize(
    ("gains", "is_ruled_out"),
    [
        pytest.param((0.96, 0.98, 1.0), True, id="by 5 % at the most not even by chance"),
        pytest.param((0.93, 0.98, 1.03), False, id="perhaps by more"),
    ],
)
def test_too_few_rounds_to_call_another_slower_still_tell_that_it_is_not_worthwhile(
    bench: Bench, gains: Sequence[float], is_ruled_out: bool
) -> None:
    """`gains`: how many times as fast as the baseline it is in each of the three rounds that there is time for; the
    search sees it as in the last."""

    def in_rounds(config: TrainConfig) -> float:
        return 1000.0 * (gains[backend.requests[-1].seed - 1] if config.num_workers else 1.0)

    backend = bench.backend(in_rounds, noise=0.0)
    short = {"soak_steps": 2}
    best = bench.search(backend, search=SPACE, stability=short, on=all_but(bench, 2.0, after_runs=3 * 2)).best
    assert len(of_purpose(bench, Purpose.CONFIRM)) == 3 * 2
    assert best["config"] == best["baseline"]["config"]
    check = check_of(best, "nothing_faster")
    assert "ambiguous" in check["detail"]
    assert (check["value"] <= 1.05) is is_ruled_out
    assert check["passed"] is is_ruled_out
    assert best["stability"]["verdict"] == ("stable" if is_ruled_out else "unconfirmed")
