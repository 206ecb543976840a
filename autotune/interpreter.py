"""How autotune starts Python: such that files of the folder that the user happens to be in replace no module.

`python -m` looks for every module in the current folder first, and so does a process of `multiprocessing` that is not
forked: a `torch.py` there would run instead of PyTorch.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping
from multiprocessing.context import SpawnContext
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The folder that the package lies in."""
_INSTALLED = ("site-packages", "dist-packages")
_PATH = "PYTHONPATH"


def trial_command(*arguments: object) -> list[str]:
    """Runs `autotune.trial`, in `environment()`."""
    return [sys.executable, "-P", "-m", "autotune.trial", *map(str, arguments)]


def script_command(script: Path, *arguments: object) -> list[str]:
    """Runs `script`, which finds modules beside it first, in `environment()`."""
    return [sys.executable, str(script), *map(str, arguments)]


def environment(more: Mapping[str, str] | None = None, *, first: Path | None = None) -> dict[str, str]:
    """The variables of this process and `more`, with a PYTHONPATH that leads to this package, and to the current folder
    only where its full path is named. `first`: a folder to look for modules in before all others."""
    given = [entry for entry in os.environ.get(_PATH, "").split(os.pathsep) if os.path.normpath(entry) != "."]
    paths = [*([str(first)] if first else []), *map(os.path.abspath, given)]
    if ROOT.name not in _INSTALLED and str(ROOT) not in paths:
        paths.append(str(ROOT))
    variables = {**os.environ, **(more or {}), _PATH: os.pathsep.join(paths)}
    return variables if paths else {name: value for name, value in variables.items() if name != _PATH}


def import_from_here_last() -> None:
    """Let factories lie in the current folder, where no other module has their name."""
    sys.path.append(str(Path.cwd()))


@contextlib.contextmanager
def spawning() -> Iterator[SpawnContext]:
    """A context of `multiprocessing` whose processes are fresh ones. They have this process's `sys.path`."""
    before = dict(os.environ)
    os.environ.update({**environment(), "PYTHONSAFEPATH": "1"})
    try:
        yield multiprocessing.get_context("spawn")
    finally:
        for name in (_PATH, "PYTHONSAFEPATH"):
            os.environ.pop(name, None)
            os.environ.update({name: before[name]} if name in before else {})
