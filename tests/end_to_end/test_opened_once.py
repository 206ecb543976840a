"""A data set that takes long to open costs a whole study that time once, whatever processes its runs have.

AUTOTUNE_OPENING_S says how long it takes (3 s where it is not set):

    AUTOTUNE_OPENING_S=20 python -m pytest -m slow -rP tests/end_to_end/test_opened_once.py
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
import yaml
from support.shell import Shell

from autotune.records import TrialStatus

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")]

TAKES_S = float(os.environ.get("AUTOTUNE_OPENING_S", "3"))
REST_S = 70.0
"""Of the budget: for start-up and measuring."""


def test_a_data_set_is_opened_once_for_a_whole_study(tmp_path: Path) -> None:
    shell = Shell(tmp_path, budget=f"{TAKES_S + REST_S:.0f}s", workers=2)
    try:
        shell.write_spec("apart", micro_batch_size=[5, 10, 20, 40], num_workers=[0, 1, 2], amp_dtype="none")
        spec = yaml.safe_load(shell.spec.read_text())
        spec["data"]["args"] = {"log": str(tmp_path / "log"), "takes_s": TAKES_S}
        shell.spec.write_text(yaml.safe_dump(spec))
        code, _, stderr = shell.run()
    finally:
        shell.clean_up()
    assert code == 0, stderr
    results = [record.result for record in shell.study.read_trials()]
    openings = (tmp_path / "log").read_text().splitlines()
    kinds = Counter(f"{result.side or 'both sides'}, {result.status}" for result in results)
    processes = {result.process for result in results}
    again = sum(result.runs_before > 0 for result in results)
    print(f"{len(openings)} opening of {TAKES_S:.0f} s; {len(results)} runs: {dict(kinds)}")
    print(f"{len(processes)} processes; {again} runs in one that had run others")
    print("start-ups:", *(f"{result.start_up_s:.2f}" for result in results if result.start_up_s is not None))
    assert len(openings) == 1
    assert len(processes) > 1
    assert any(result.status is TrialStatus.OK for result in results)
