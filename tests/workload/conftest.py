"""A spec, and a folder of one's own beside it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotune.spec import Spec

_module_numbers = itertools.count()


@pytest.fixture
def make_spec() -> Callable[..., Spec]:
    """A spec of small generated images in four classes, with the sections given in place of its own."""
    data = {"synthetic": {"samples": 64, "classes": 4, "image_size": 16}}

    def make(**sections: Any) -> Spec:
        return Spec.model_validate({"model": {"timm": "resnet18"}, "data": data, "budget": "60s"} | sections)

    return make


@pytest.fixture
def module(tmp_path: Path) -> Callable[[str], str]:
    """Writes a module beside the spec and returns its name: each test has its own, for Python imports a name once."""

    def write(code: str) -> str:
        name = f"usermodule{next(_module_numbers)}"
        (tmp_path / f"{name}.py").write_text(code)
        return name

    return write


@pytest.fixture(autouse=True)
def own_import_path_and_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
