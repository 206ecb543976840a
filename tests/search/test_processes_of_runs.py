"""Which runs of a study ask for a process of their own."""

from __future__ import annotations

from support.bench import Bench
from support.simulation import FormulaBackend

from autotune.execution.simulated import SimulatedBackend, VirtualClock, World
from autotune.execution.simulated.catalogue import CPU, H200, worlds
from autotune.records import SEARCHING, Purpose, TrialRecord
from autotune.search import search


def shared(bench: Bench, backend: FormulaBackend) -> list[tuple[TrialRecord, bool]]:
    """Each run, and whether it may run in any process."""
    return [
        (record, request.in_any_process)
        for record, request in zip(bench.folder.read_trials(), backend.requests, strict=True)
    ]


def test_each_round_and_the_soak_begin_with_a_new_process_and_nothing_else_does(bench: Bench) -> None:
    backend = bench.backend(noise=0.01)
    assert bench.search(backend).best["stability"]["verdict"] == "stable"
    runs = shared(bench, backend)
    rounds: dict[int | None, list[bool]] = {}
    for record, any_process in runs:
        if record.purpose is Purpose.CONFIRM:
            rounds.setdefault(record.round, []).append(any_process)
        else:
            assert any_process is (record.purpose is not Purpose.SOAK), record.purpose
    assert {record.purpose for record, _ in runs} >= {*SEARCHING, Purpose.REFERENCE, Purpose.PROBE, Purpose.SOAK}
    assert all(not first and all(others) for first, *others in rounds.values())


def searched(world: World, bench: Bench) -> list[TrialRecord]:
    clock = VirtualClock()
    search(
        bench.load(
            training={"effective_batch_size": world.effective_batch_size},
            data={"synthetic": {"samples": world.samples}},
            budget=world.budget,
            baseline=dict(world.baseline),
            search={knob: list(value) if isinstance(value, tuple) else value for knob, value in world.search},
        ),
        bench.folder,
        open_study=bench.open_study,
        start_backend=SimulatedBackend(world, clock, seed=0),
        clock=clock,
    )
    return bench.folder.read_trials()


def test_on_a_gpu_most_runs_join_others_and_each_round_is_one_process(bench: Bench) -> None:
    records = searched(worlds(H200)["compute-bound"], bench)
    searching = [record for record in records if record.purpose in SEARCHING]
    assert [record.result.runs_before for record in searching] == list(range(len(searching)))
    rounds: dict[int | None, list[TrialRecord]] = {}
    for record in records:
        if record.purpose is Purpose.CONFIRM:
            rounds.setdefault(record.round, []).append(record)
    for runs in rounds.values():
        assert [record.result.runs_before for record in runs] == list(range(len(runs)))
    assert len({record.result.process for runs in rounds.values() for record in runs}) == len(rounds)


def test_on_a_plain_cpu_nearly_each_has_its_own(bench: Bench) -> None:
    records = searched(worlds(CPU)["compute-bound"], bench)
    assert sum(record.result.runs_before > 0 for record in records) <= 1, "one may have been tried"
