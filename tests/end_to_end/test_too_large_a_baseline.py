"""A baseline that does not fit into memory: the whole command, with a model that raises what a GPU's allocator does."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support.shell import Shell

from autotune.records import Purpose, TrialStatus

pytestmark = pytest.mark.slow


def search(tmp_path: Path, most: int) -> tuple[Shell, int, str]:
    """`most`: samples of a micro-batch that fit."""
    shell = Shell(tmp_path, workers=0)
    try:
        shell.write_spec("cramped", micro_batch_size=[2, 4, 8, 16, 32, 64], amp_dtype="none")
        spec = yaml.safe_load(shell.spec.read_text())
        spec["model"]["args"] = {"most": most}
        del spec["training"], spec["baseline"]
        shell.spec.write_text(yaml.safe_dump(spec))
        code, _, err = shell.run()
        return shell, code, err
    finally:
        shell.clean_up()


def test_the_micro_batch_is_halved_until_it_fits(tmp_path: Path) -> None:
    shell, code, err = search(tmp_path, 10)
    assert code == 0, err
    begins = [record.result for record in shell.study.read_trials() if record.purpose is Purpose.BASELINE]
    assert [(each.config.micro_batch_size, each.status) for each in begins] == [
        (32, TrialStatus.OOM),
        (16, TrialStatus.OOM),
        (8, TrialStatus.OK),
    ]
    document = shell.study.read_best()
    assert document is not None
    assert document["baseline"]["config"]["micro_batch_size"] == 8
    assert document["baseline"]["config"]["grad_accum_steps"] == 4
    assert document["effective_batch_size"] == 32
    for said in (err, " ".join(document["notes"])):
        assert "does not fit into memory with a micro-batch of 32: everything is compared with 8 × 4" in said
    failed = [record.result.config for record in shell.study.read_trials() if record.result.status is TrialStatus.OOM]
    assert len(set(failed)) == len(failed), "what is known not to fit is not tried again"


def test_of_a_model_of_which_no_sample_fits_the_study_ends(tmp_path: Path) -> None:
    _, code, err = search(tmp_path, 0)
    assert code == 3
    assert "not even one sample fits into memory" in err
    assert "Tried to allocate 1 MiB" in err
