"""What runs on a node of a Ray cluster: the same trial process as on the user's own machine, under a Ray worker.

A worker keeps its template and its CPU cores from one trial to the next: trials that share a node do not share cores.
Input and output are plain JSON.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from autotune.errors import AutotuneError, SpecError
from autotune.execution.local import LocalBackend
from autotune.execution.place import ANYWHERE, Place, shares_of, usable_cpus
from autotune.records import TrialRequest

_LOCK = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
_DEVICES = "CUDA_VISIBLE_DEVICES"
"""Ray sets it anew for each task."""


@dataclass
class _Warm:
    """A backend that has loaded its template, for trials of one study on the same devices."""

    key: str
    backend: LocalBackend


_warm: _Warm | None = None
_held: IO[bytes] | None = None
"""The lock on this worker's share of the cores, held until the worker ends."""
_place: Place = ANYWHERE


def look(slots: int, spec: dict[str, Any], deadline_s: float) -> dict[str, Any]:
    """The facts and the name of this node, which has `slots` slots; or the problem that it has with the workload."""
    try:
        facts = _backend(spec, slots).facts(deadline_s)
    except AutotuneError as error:
        return {"host": socket.gethostname(), "problem": _in_one_line(error)}
    return {"host": socket.gethostname(), "facts": facts.model_dump(mode="json")}


def run(slots: int, spec: dict[str, Any], request: dict[str, Any], deadline_s: float) -> dict[str, Any]:
    """Run one trial: its result, or the problem that prevented one."""
    asked = TrialRequest.model_validate(request)
    try:
        result = _backend(spec, slots).run(asked, deadline_s=deadline_s, on_event=lambda _event: None)
    except AutotuneError as error:
        return {"problem": _in_one_line(error)}
    return {"result": result.model_dump(mode="json"), "node": _this_node()}


def _this_node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _in_one_line(error: AutotuneError) -> str:
    return "; ".join(error.problems) if isinstance(error, SpecError) else str(error)


def _backend(spec: dict[str, Any], slots: int) -> LocalBackend:
    """The backend of this worker; a new one for another study, or after Ray has given the worker other devices."""
    global _warm
    stated = json.dumps(spec, sort_keys=True) + os.environ.get(_DEVICES, "")
    key = hashlib.sha256(stated.encode()).hexdigest()
    if _warm is not None and _warm.key != key:
        _warm.backend.close()
        _warm = None
    if _warm is None:
        _warm = _Warm(key, LocalBackend(spec, code_folder(), _own_place(slots), keeps_processes=False))
    return _warm.backend


def code_folder() -> Path:
    """The folder that this worker runs in, where Ray has unpacked the workload's code.

    Every node removes the folder and unpacks it anew. Nodes on one host share the folder, so another node may have
    removed the folder that this worker runs in. The new folder has the same name.

    """
    try:
        return Path.cwd()
    except FileNotFoundError:
        os.chdir(os.environ["PWD"])
        return Path.cwd()


def _own_place(slots: int) -> Place:
    """A share of the node's cores that no other worker has taken; all cores if no share is left."""
    global _held, _place
    if _held is not None or slots < 2:
        return _place
    for slot, cores in enumerate(shares_of(usable_cpus(), slots)) if slots <= len(usable_cpus()) else ():
        path = Path(tempfile.gettempdir()) / f"autotune-{os.getuid()}-{_this_node()[:12]}-{slot}.lock"
        try:
            # All users can write to this folder: somebody may have put a link, a pipe or a file of that name there.
            lock = os.fdopen(os.open(path, _LOCK, 0o600), "wb")
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        _held, _place = lock, Place(cores=cores)
        break
    return _place
