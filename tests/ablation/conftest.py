"""An ablation on a simulated machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.ablation import AblationBench


@pytest.fixture
def bench(tmp_path: Path) -> AblationBench:
    return AblationBench(tmp_path)
