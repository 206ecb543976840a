"""What is run, in which order, within which time; and what is kept of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.ablation import SPEC, AblationBench, techniques
from support.facts import cuda_facts
from support.simulation import FormulaBackend

from autotune.ablation import Interrupted
from autotune.config import TrainConfig
from autotune.errors import NoStableConfiguration, SpecError, StudyMismatch
from autotune.execution.backend import OnEvent
from autotune.records import Purpose, TrialRequest, TrialResult, TrialStatus
from autotune.store import AblationFolder


def runs_of(bench: AblationBench) -> list[Any]:
    return bench.folder.read_trials()


def test_every_round_has_every_cell_once_from_one_seed(bench: AblationBench) -> None:
    found = bench.ablate()
    rounds: dict[int, list[Any]] = {}
    for record in runs_of(bench):
        assert record.purpose is Purpose.ABLATE
        rounds.setdefault(record.round, []).append(record.result)
    assert len(rounds) == found.rounds >= 3
    for results in rounds.values():
        assert len({result.config for result in results}) == len(results) == 8
        assert len({result.seed for result in results}) == 1
    assert len({results[0].seed for results in rounds.values()}) == len(rounds)


def test_the_order_changes_from_round_to_round(bench: AblationBench) -> None:
    bench.ablate()
    orders = {}
    for record in runs_of(bench):
        orders.setdefault(record.round, []).append(record.result.config.canonical_json())
    assert len(set(map(tuple, orders.values()))) == len(orders)


def test_the_budget_is_used_and_kept(bench: AblationBench) -> None:
    began_s = bench.clock()
    bench.ablate()
    assert 0.6 * 600 < bench.clock() - began_s <= 600


def test_the_last_planned_round_fits_too(bench: AblationBench) -> None:
    assert bench.ablate(ablation={"rounds": 3}, budget="2m").rounds == 3


def test_the_last_planned_round_fits_where_starts_become_slower(bench: AblationBench) -> None:
    class Tiring(FormulaBackend):
        """As when another program comes to the machine in the middle of a round."""

        def run(self, request: TrialRequest, *, deadline_s: float, on_event: OnEvent) -> TrialResult:
            extra_s = 1.2 if len(runs_of(bench)) >= 14 else 0.0
            bench.clock.advance(extra_s)
            result = super().run(request, deadline_s=deadline_s - extra_s, on_event=on_event)
            return result.model_copy(update={"wall_s": result.wall_s + extra_s})

    backend = Tiring(bench.clock, cuda_facts(), techniques)
    assert bench.ablate(backend, ablation={"rounds": 3}, budget="2m").rounds == 3
    assert {record.result.status for record in runs_of(bench)} == {TrialStatus.OK}


def test_no_more_rounds_than_asked_for(bench: AblationBench) -> None:
    assert bench.ablate(ablation={"rounds": 4}).rounds == 4


def test_a_budget_without_room_for_three_rounds_says_what_is_needed_and_keeps_what_there_is(
    bench: AblationBench,
) -> None:
    with pytest.raises(SpecError, match=r"3 rounds of 8 cells do not fit into 15s.*give .* or name fewer factors"):
        bench.ablate(budget="15s")
    before = len(runs_of(bench))
    found = bench.ablate(budget="10m")
    assert found.rounds >= 3
    assert len(runs_of(bench)) > before


def test_ctrl_c_keeps_what_was_measured_and_the_same_call_goes_on(bench: AblationBench) -> None:
    backend = bench.backend()
    backend.interrupt_at = 20
    with pytest.raises(Interrupted) as caught:
        bench.ablate(backend)
    so_far = caught.value.result
    assert so_far is not None
    assert so_far.interrupted
    assert so_far.rounds == 2
    assert backend.closed
    kept = {record.number for record in runs_of(bench)}
    assert len(kept) == 19
    found = bench.ablate()
    assert not found.interrupted
    assert found.rounds > 2
    assert Counter(record.round for record in runs_of(bench)) == dict.fromkeys(range(1, found.rounds + 1), 8)
    assert kept < {record.number for record in runs_of(bench)}


def test_before_anything_was_measured_ctrl_c_has_no_result(bench: AblationBench) -> None:
    backend = bench.backend()
    backend.interrupt_at = 1
    with pytest.raises(Interrupted) as caught:
        bench.ablate(backend)
    assert caught.value.result is None


def test_another_spec_does_not_mix_with_it(bench: AblationBench) -> None:
    bench.ablate(ablation={"rounds": 3})
    with pytest.raises(StudyMismatch, match="another ablation; what differs"):
        bench.ablate(training={"effective_batch_size": 64})
    before = bench.folder.path
    bench.ablate(training={"effective_batch_size": 64}, fresh=True)
    assert len([path for path in before.parent.iterdir() if path.is_dir()]) == 2, "the earlier one is kept"


def test_a_finished_one_gains_rounds_with_a_larger_budget(bench: AblationBench) -> None:
    fewer = bench.ablate(budget="3m")
    assert bench.ablate(budget="10m").rounds > fewer.rounds


def out_of_memory_with_large_batches(config: TrainConfig) -> float | TrialStatus:
    return TrialStatus.OOM if config.micro_batch_size > 64 and config.amp_dtype == "none" else techniques(config)


def test_a_cell_that_runs_out_of_memory_is_data(bench: AblationBench) -> None:
    found = bench.ablate(bench.backend(out_of_memory_with_large_batches))
    failed = [cell for cell in found.cells if cell.status is TrialStatus.OOM]
    assert {cell.on for cell in failed} == {(), ("pinning",)}
    assert all(cell.samples_per_s is None and cell.failures for cell in failed)
    runs = Counter(record.result.config for record in runs_of(bench))
    assert all(runs[cell.config] == 1 for cell in failed), "not tried again"
    assert all("plain" in (effect.unavailable or "") for effect in found.effects)
    assert found.together is None


def test_where_no_cell_trains_the_reason_is_said(bench: AblationBench) -> None:
    with pytest.raises(NoStableConfiguration, match="no cell trains here"):
        bench.ablate(bench.backend(lambda _config: TrialStatus.OOM))


def test_a_search_and_an_ablation_do_not_share_a_folder(bench: AblationBench, tmp_path: Path) -> None:
    folder = AblationFolder(tmp_path / "resnet18")
    folder.path.mkdir()
    (folder.path / "study.db").write_text("")
    with pytest.raises(StudyMismatch):
        bench.ablate()
    assert SPEC["budget"] == "10m"
