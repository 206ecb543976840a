"""The figures of an ablation whose truth is known, and the files that hold them."""

from __future__ import annotations

import json
import math

import pytest
from support.ablation import ACCUMULATION, AMP, AMP_WITH_ACCUMULATION, PINNING, PLAIN_RATE, AblationBench

from autotune.ablation import overview, write, write_overview
from autotune.ablation.markdown import document
from autotune.records import Ablation, Effect
from autotune.store import AblationFolder


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Ablation:
    bench = AblationBench(tmp_path_factory.mktemp("ablated"))
    return bench.ablate(bench.backend(noise=0.005))


def effect(found: Ablation, *techniques: str) -> Effect:
    return next(effect for effect in found.effects if effect.techniques == techniques)


def test_effects_are_those_of_the_machine(found: Ablation) -> None:
    # Each main effect is a mean over both levels of the others: half of an interaction falls to it.
    half = math.sqrt(AMP_WITH_ACCUMULATION)
    truth = {
        ("GA",): ACCUMULATION * half,
        ("AMP",): AMP * half,
        ("pinning",): PINNING,
        ("GA", "AMP"): AMP_WITH_ACCUMULATION,
        ("GA", "pinning"): 1.0,
        ("AMP", "pinning"): 1.0,
        ("GA", "AMP", "pinning"): 1.0,
    }
    assert {one.techniques for one in found.effects} == truth.keys()
    for techniques, ratio in truth.items():
        measured = effect(found, *techniques).throughput
        assert measured is not None
        assert measured.ratio == pytest.approx(ratio, rel=0.02)
        assert measured.ci95 is not None
        assert measured.ci95[0] < measured.ratio < measured.ci95[1]


def test_cells_are_compared_with_plain(found: Ablation) -> None:
    assert found.plain.on == ()
    assert found.plain.ratio is None
    assert found.plain.samples_per_s == pytest.approx(PLAIN_RATE, rel=0.02)
    amp = next(cell for cell in found.cells if cell.on == ("AMP",))
    assert amp.ratio is not None
    assert amp.ratio.ratio == pytest.approx(AMP, rel=0.02)
    assert amp.ratio.is_clear


def test_all_together_is_set_beside_what_each_alone_multiplies_to(found: Ablation) -> None:
    together = found.together
    assert together is not None
    assert together.throughput.ratio == pytest.approx(ACCUMULATION * AMP * PINNING * AMP_WITH_ACCUMULATION, rel=0.02)
    assert together.product.ratio == pytest.approx(ACCUMULATION * AMP * PINNING, rel=0.02)
    assert together.beyond.ratio == pytest.approx(AMP_WITH_ACCUMULATION, rel=0.02)


def test_losses_are_compared_over_the_same_samples(bench: AblationBench) -> None:
    backend = bench.backend(
        loss=lambda config, samples: (2.3 if config.amp_dtype == "none" else 2.4) / (1 + samples / 1e6)
    )
    found = bench.ablate(backend)
    window = found.loss_window
    assert window is not None
    assert 1 <= window.first_sample < window.last_sample
    for cell in found.cells[1:]:
        assert cell.loss_difference is not None
        expected = 0.1 if "AMP" in cell.on else 0.0
        assert cell.loss_difference == pytest.approx(expected, abs=0.02)


def test_the_tables_hold_the_figures(found: Ablation) -> None:
    text = document(found)
    assert f"Made by `{found.command}`" in text
    amp = effect(found, "AMP").throughput
    assert amp is not None
    assert f"{amp.ratio:.2f}×" in text
    heads = 2 * 2
    assert text.count("\n| ") == heads + len(found.cells) + len(found.effects)
    assert "NaN" not in text


def test_everything_is_written_and_can_be_read_back(found: Ablation, bench: AblationBench) -> None:
    write(found, bench.folder)
    assert Ablation.model_validate_json(bench.folder.result.read_text()) == found
    assert bench.folder.tables.read_text() == document(found)
    assert bench.folder.picture("svg").read_text().lstrip().startswith("<?xml")
    assert bench.folder.picture("png").read_bytes().startswith(b"\x89PNG")


def test_several_have_one_table(found: Ablation, bench: AblationBench) -> None:
    around = AblationFolder(bench.folder.path.parent)
    other = found.model_copy(update={"name": "other"})
    write_overview([found, other], around)
    assert "| effect on throughput | resnet18 | other |" in around.tables.read_text()
    assert json.loads(around.result.read_text()) == json.loads(json.dumps(overview([found, other])))
    assert around.picture("png").read_bytes().startswith(b"\x89PNG")


def test_batch_norm_is_said_beside_accumulation(bench: AblationBench) -> None:
    from support.facts import cuda_facts

    found = bench.ablate(bench.backend(facts=cuda_facts(batch_norm=True)))
    assert any("BatchNorm" in note for note in found.notes)
