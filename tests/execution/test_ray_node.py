"""What a Ray worker does on its node without Ray: the cores that it takes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from autotune.execution import ray_node
from autotune.execution.place import ANYWHERE


@pytest.mark.parametrize("make", [lambda path: path.symlink_to(path.parent / "precious"), os.mkfifo, Path.mkdir])
def test_a_lock_in_the_folder_of_all_users_is_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    """What another user has put there under that name is left alone, and the worker has no cores of its own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ray_node, "_this_node", lambda: "0123456789abcdef")
    monkeypatch.setattr(ray_node, "usable_cpus", lambda: [0, 1])
    (tmp_path / "precious").write_text("precious")
    for slot in range(2):
        make(tmp_path / f"autotune-{os.getuid()}-0123456789ab-{slot}.lock")
    assert ray_node._own_place(2) is ANYWHERE
    assert (tmp_path / "precious").read_text() == "precious"
