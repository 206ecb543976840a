"""A trial with several ranks: torch's elastic launcher starts them; they are watched and combined into one result.

A rank that fails ends with a non-zero code. The launcher then ends the others, so that none waits in a collective that
nobody else will enter.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from dataclasses import dataclass
from multiprocessing import reduction
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from autotune.host import usable_cores
from autotune.records import Failure, TrialRequest, TrialStatus
from autotune.trial import isolation
from autotune.trial.board import Board, Diary, Vigil
from autotune.trial.channel import Reporter
from autotune.trial.ranks import Ranks
from autotune.trial.run import run_trial
from autotune.workload import Prepared

Load = Any
"""Makes a `Prepared` from a setting. It is passed in, so that this module and the one that starts it do not import each
other."""

_LOOK_EVERY_S = 0.1
_TIME_FOR_THE_CULPRIT_S = 3.0
_LOST_PEER = ("closed by peer", "reset by peer", "Broken pipe", "Read error", "NCCL", "Connection refused")
"""Texts of errors that a rank raises because another rank is gone."""


class _Descriptor:
    """A file descriptor that is passed on to a spawned process, as a fork would inherit it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (reduction.DupFd(self.number),)


def _received(duplicate: Any) -> _Descriptor:
    return _Descriptor(duplicate.detach())


@dataclass(frozen=True, kw_only=True)
class _Task:
    """The input of every rank."""

    setting: dict[str, Any]
    load: Load
    prepared: Prepared | None
    """None if each rank must load the workload itself."""
    request: TrialRequest
    device: str
    ranks: int
    events: _Descriptor
    folder: Path
    """Folder of the ranks' board and results."""
    launcher: int


def run_together(
    prepared: Prepared | None,
    setting: dict[str, Any],
    load: Load,
    request: TrialRequest,
    device: torch.device,
    events: int,
    report: Reporter,
) -> None:
    """Run `request` on as many ranks as its configuration has, on consecutive devices from `device`, and report as one
    trial.

    `prepared`: the workload, if this process may be forked; else each rank calls `load(setting)`.
    """
    ranks = request.config.world_size
    folder = Path(setting["scratch"]) / f"ranks-{os.getpid()}"
    folder.mkdir(parents=True)
    task = _Task(
        setting=setting,
        load=load,
        prepared=prepared,
        request=request,
        device=str(device),
        ranks=ranks,
        events=_Descriptor(events),
        folder=folder,
        launcher=os.getpid(),
    )
    watch = _Watch(folder, ranks)
    watch.start()
    deaths: dict[int, Any] = {}
    try:
        elastic_launch(_launch_config(ranks, folder, forks=prepared is not None), _run_rank)(task)
    except ChildFailedError as error:
        deaths = dict(error.failures)
    finally:
        watch.stop()
    report("result", _one_result(ranks, folder, deaths, watch.verdict, device))


def _launch_config(ranks: int, folder: Path, *, forks: bool) -> LaunchConfig:
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=folder.name,
        # A file that only this user can write: what is read from it is unpickled, and the usual store's server is open
        # to the whole network.
        rdzv_backend="c10d",
        rdzv_configs={"store_type": "file"},
        rdzv_endpoint=str(folder / "rendezvous"),
        local_addr="localhost",
        max_restarts=0,
        monitor_interval=_LOOK_EVERY_S,
        start_method="fork" if forks else "spawn",
        logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
    )


class _Watch(threading.Thread):
    """Watches the board while the ranks train, and ends all ranks when one hangs."""

    def __init__(self, folder: Path, ranks: int) -> None:
        super().__init__(daemon=True)
        self._board = Board(folder / "board", ranks)
        self._vigil = Vigil()
        self._over = threading.Event()
        self.verdict: str | None = None

    def run(self) -> None:
        while not self._over.wait(_LOOK_EVERY_S):
            entries = self._board.read()
            culprits = self._vigil.culprits(entries, time.monotonic())
            if culprits:
                self.verdict = _of_a_hang(culprits, len(entries), entries[culprits[0]].steps)
                for entry in entries:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(entry.pid, signal.SIGKILL)
                return

    def stop(self) -> None:
        self._over.set()
        self.join()


def _of_a_hang(culprits: list[int], ranks: int, steps: int) -> str:
    if len(culprits) == ranks:
        return f"all {ranks} ranks hang after optimizer step {steps}"
    named = ", ".join(map(str, culprits))
    return f"rank {named} hangs after optimizer step {steps}, and the others wait for it"


def _run_rank(task: _Task) -> None:
    """Run one rank in its own process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a handler in Python would never run inside a collective
    isolation.die_with_parent(task.launcher)
    number = int(os.environ["RANK"])
    device = _device_of(task.device, number)
    diary = Diary(Board(task.folder / "board", task.ranks), number, os.getpid())
    torch.set_num_threads(max(usable_cores() // task.ranks, 1))
    prepared = task.prepared or task.load(task.setting)
    kind = {"cuda": "cpu:gloo,cuda:nccl", "xpu": "cpu:gloo,xpu:xccl"}.get(device.type, "gloo")
    dist.init_process_group(kind)
    ranks = Ranks(device, diary, psutil.Process(task.launcher))
    events = Reporter(task.events.number)
    ended: dict[str, Any] = {}

    def report(event: str, payload: dict[str, Any] | None = None) -> None:
        if event == "result":
            ended.update(payload or {})
        elif number == 0:
            events(event, payload)

    run_trial(prepared, task.request, device, report, task.folder, ranks)
    own_s, step_s = ranks.times()
    ended |= {"at_s": time.monotonic(), "own_step_s": own_s, "step_s": step_s}
    partial = task.folder / f"{number}.partial"
    partial.write_text(json.dumps(ended))
    partial.rename(task.folder / f"{number}.json")
    if ended["failure"] is None:
        dist.barrier()
        return  # do not exit: the launcher waits for the return value of this function
    if _lost_a_peer(ended):
        time.sleep(_TIME_FOR_THE_CULPRIT_S)  # the launcher reports the first rank that ends
    os._exit(1)  # skip any clean-up that could wait for another rank


def _device_of(first: str, rank: int) -> torch.device:
    device = torch.device(first)
    return device if device.index is None else torch.device(device.type, device.index + rank)


def _one_result(
    ranks: int, folder: Path, deaths: dict[int, Any], hang: str | None, device: torch.device
) -> dict[str, Any]:
    """The trial's result, made from those of its ranks: the first failure, and the largest memory."""
    ends = {rank: json.loads(path.read_text()) for rank in range(ranks) if (path := folder / f"{rank}.json").exists()}
    status, failure = _verdict(ranks, ends, deaths, hang)
    largest = max((end["memory"] for end in ends.values()), key=_peak, default=None)
    told = ends.get(0, {})
    activations = [end["largest_activation"] for end in ends.values() if end["largest_activation"]]
    return {
        "status": status,
        "failure": failure.model_dump() if failure else None,
        "memory": largest,
        "unreadable_samples": sorted({path for end in ends.values() for path in end["unreadable_samples"]}),
        "rates": told.get("rates"),
        "first_gradient": told.get("first_gradient"),
        "largest_activation": max(activations, key=lambda one: one["value"], default=None),
        "ranks": [
            {
                "rank": rank,
                "device": str(_device_of(str(device), rank)),
                "own_step_s": end["own_step_s"],
                "step_s": end["step_s"],
                "peak_memory_bytes": _peak(end["memory"]),
            }
            for rank, end in sorted(ends.items())
        ],
    }


def _verdict(
    ranks: int, ends: dict[int, Any], deaths: dict[int, Any], hang: str | None
) -> tuple[TrialStatus, Failure | None]:
    """Status and failure of the trial: a hang, else the first rank that was killed, else the first that raised."""
    if hang is not None:
        return TrialStatus.TIMEOUT, Failure(reason=hang)
    for rank, death in deaths.items():
        if rank not in ends:
            return _of_a_death(rank, death.exitcode)
    failed = {rank: end for rank, end in ends.items() if end["failure"] is not None}
    culprits = {rank: end for rank, end in failed.items() if not _lost_a_peer(end)}
    silent = [rank for rank in range(ranks) if rank not in ends]
    if silent and not culprits:
        return _of_a_death(silent[0], 0)
    if failed:
        first = min(culprits or failed, key=lambda rank: float(failed[rank]["at_s"]))
        failure = Failure.model_validate(failed[first]["failure"])
        named = failure.model_copy(update={"reason": f"rank {first}: {failure.reason}"})
        return TrialStatus(failed[first]["status"]), named
    return TrialStatus(ends[0]["status"]), None


def _of_a_death(rank: int, code: int) -> tuple[TrialStatus, Failure]:
    """Status and failure of a rank that ended without a result; `code` is negative for a signal."""
    if code >= 0:
        reason = f"rank {rank} exited with code {code} before it returned a result"
        return TrialStatus.CRASHED, Failure(reason=reason, exit_code=code)
    name = signal.Signals(-code).name if -code in set(signal.Signals) else "real-time"
    status = TrialStatus.OOM if -code == signal.SIGKILL else TrialStatus.CRASHED
    also = ", as the kernel's out-of-memory killer does" if status is TrialStatus.OOM else ""
    return status, Failure(reason=f"rank {rank} was killed by signal {-code} ({name}){also}", signal=-code)


def _lost_a_peer(end: dict[str, Any]) -> bool:
    """Whether a rank failed only because another rank is gone."""
    return end["failure"] is not None and any(text in end["failure"]["reason"] for text in _LOST_PEER)


def _peak(memory: dict[str, Any]) -> int:
    reserved = memory["reserved_bytes"]
    return int(memory["resident_growth_bytes"] if reserved is None else reserved)
