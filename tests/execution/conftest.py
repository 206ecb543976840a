from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from support.processes import MARK, gone


@pytest.fixture(scope="module")
def mark() -> Iterator[str]:
    """An environment variable by which all processes that a module's tests start are found again; in the end, none is
    left."""
    mark = uuid.uuid4().hex
    os.environ[MARK] = mark
    yield mark
    del os.environ[MARK]
    assert gone(mark)
