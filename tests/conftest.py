"""What holds for every test."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

# Read when NumPy and PyTorch are imported, also by the processes that tests start. Tests run in several processes at a
# time; threads of each for every core would wait for each other far longer than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# While modules are imported, to look for garbage takes a quarter of the time; and they stay to the end.
gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """The process ends: its objects need not be told apart any more, which takes seconds where PyTorch was imported."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _no_flushing() -> Iterator[None]:
    """No test survives a power failure: what is written stays in the page cache. `test_store.py` checks the flushing
    with an fsync of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _descriptor: None)
        yield
