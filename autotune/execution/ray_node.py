"""What runs on a node of a Ray cluster: the same trial process as on the user's own machine, under a Ray worker.

A worker keeps its template from one trial to the next, and the CPU cores that it has taken: trials that share a node do
not share cores. Plain JSON comes in and goes out.
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
"""Which Ray sets for each task anew."""


@dataclass
class _Warm:
    """A backend that has loaded its template, for trials of one study on the same devices."""

    key: str
    backend: LocalBackend


_warm: _Warm | None = None
_held: IO[bytes] | None = None
"""The lock on this worker's share of the cores, until it ends."""
_place: Place = ANYWHERE


def look(slots: int, spec: dict[str, Any], deadline_s: float) -> dict[str, Any]:
    """Facts of this node, one of whose `slots` this is, and its name; or the problem that it has with the workload."""
    try:
        facts = _backend(spec, slots).facts(deadline_s)
    except AutotuneError as error:
        return {"host": socket.gethostname(), "problem": _in_one_line(error)}
    return {"host": socket.gethostname(), "facts": facts.model_dump(mode="json")}


def run(slots: int, spec: dict[str, Any], request: dict[str, Any], deadline_s: float) -> dict[str, Any]:
    """One trial: its result, or the problem that kept it from any."""
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
    """That of this worker; a new one for another study, or once Ray has given it other devices."""
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
    """Where this worker runs, which is where Ray has unpacked the workload's code.

    Every node removes what is there and unpacks it anew. Nodes that share a host share the folder, so a worker that one
    of them has started may stand in what another has removed since; under the same name there is the new one.
    """
    try:
        return Path.cwd()
    except FileNotFoundError:
        os.chdir(os.environ["PWD"])
        return Path.cwd()


def _own_place(slots: int) -> Place:
    """A share of the node's cores that no other worker has taken; all of them where there is none left."""
    global _held, _place
    if _held is not None or slots < 2:
        return _place
    for slot, cores in enumerate(shares_of(usable_cpus(), slots)) if slots <= len(usable_cpus()) else ():
        path = Path(tempfile.gettempdir()) / f"autotune-{os.getuid()}-{_this_node()[:12]}-{slot}.lock"
        try:
            # In a folder of all users, where anybody may have put a link, a pipe or a file of that name.
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
