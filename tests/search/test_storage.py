"""Optuna's storage in a file: what of it is imported ahead."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("opening", "imported"), [("storage.open_study", True), ("lambda folder, sampler: None", False)]
)
def test_what_opening_a_file_needs_is_imported_while_pytorch_is_loaded(opening: str, imported: bool) -> None:
    script = (
        "import sys; from autotune.search import storage\n"
        "before = set(sys.modules)\n"
        f"storage.warm_up({opening})\n"
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ({"optuna.storages._rdb.models", "alembic.script"} <= set(done.stdout.split())) is imported
