"""What an exception inside a trial says about the configuration: out of memory, diverged, or failed."""

from __future__ import annotations

import re
import signal
import traceback
from pathlib import Path
from typing import Any

import torch

from autotune.records import Failure, TrialStatus
from autotune.workload.user_code import at_user_line, said

_KILLED = "killed by signal: Killed"
_OUT_OF_MEMORY = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_SUPPORTED",
    "can't allocate memory",
    "Cannot allocate memory",
    _KILLED,
    "killed by signal: Bus error",
    "out of shared memory",
)
"""Texts of RuntimeErrors that mean out of memory: torch raises its own class only for the caching allocator. A loader
process dies with `Killed` by the kernel's OOM killer, and with `Bus error` when /dev/shm is full."""


_OF_A_CONTEXT = "CUDA error:"
"""Every error that CUDA itself returns begins like this. After an illegal access, a failed launch or an assertion on
the device, all later calls return the same error."""
_ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|.)")
"""ECMA-48 control sequences, operating system commands, and two-character escapes."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


_LONGEST = 500
"""Longest reason, in characters."""
_OWN = Path(__file__).resolve().parents[1]
_CALLED_FROM = {
    "training.step.__call__": "training.loss",
    "training.step._update": "training.optimizer",
    "training.window": "training.loss",
    "training.batch": "data",
    "training.loader": "data",
    "trial.observed_loader": "data",
    "trial.sides": "data",
    "workload.loss.cross_entropy": "model",
    "workload.loss._pair": "training.loss",
}
"""Modules, or functions of them, and the section whose code they call."""


class Diverged(Exception):
    """Raised when a loss is not finite."""


def classify(error: BaseException) -> TrialStatus:
    """The status of a trial that ended with `error`."""
    chain = _causes(error)
    if any(isinstance(link, torch.OutOfMemoryError | MemoryError) for link in chain):
        return TrialStatus.OOM
    if any(text in said(link) for link in chain for text in _OUT_OF_MEMORY if isinstance(link, RuntimeError | OSError)):
        return TrialStatus.OOM
    return TrialStatus.DIVERGED if isinstance(error, Diverged) else TrialStatus.FAILED


def poisons(error: BaseException) -> bool:
    """Whether nothing can run in this process any more: an error that stays with a device's context."""
    kind: Any = getattr(torch, "AcceleratorError", ())
    return any(
        isinstance(link, kind) or (isinstance(link, RuntimeError) and _OF_A_CONTEXT in said(link))
        for link in _causes(error)
        if not isinstance(link, torch.OutOfMemoryError)
    )


def _causes(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and not any(error is link for link in chain):  # a user's class may define ==
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def printable(text: str) -> str:
    """`text` without terminal escapes, other control characters and unpaired surrogates, safe for JSON, terminals and
    reports."""
    return _CONTROL.sub("", _ESCAPE.sub("", text)).encode(errors="replace").decode()


def _section(error: BaseException) -> str | None:
    """The section of the spec whose code failed, found from the last frame of autotune, which called that code."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(_OWN)]
    if not frames:
        return None
    last = frames[-1]
    module = ".".join(Path(last.filename).relative_to(_OWN).with_suffix("").parts)
    return _CALLED_FROM.get(f"{module}.{last.name}", _CALLED_FROM.get(module))


def describe(error: BaseException) -> Failure:
    """For people: the most useful line of the message and the line in the user's code. For the record: the whole
    traceback, and the signal if a loader process was killed."""
    lines = [line for line in printable(said(error)).strip().splitlines() if line.strip()]
    name = type(error).__name__
    # A loader process puts its traceback into the message; the end of it says what happened.
    line = (lines[-1] if lines[0].startswith("Caught ") else lines[0]) if lines else "(no message)"
    is_named = isinstance(error, Diverged) or re.match(rf"([\w.]+\.)?{re.escape(name)}\b", line)
    reason = line if is_named else f"{name}: {line}"
    where = at_user_line(error)
    killed = any(_KILLED in said(link) for link in _causes(error))
    return Failure(
        reason=reason[: _LONGEST - len(where)] + where,
        section=_section(error),
        traceback=_whole(error)[-20_000:],
        signal=signal.SIGKILL if killed else None,
    )


def _whole(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001 - calls the user's code for the text
        text = "".join(traceback.format_tb(error.__traceback__)) + type(error).__name__
    return text.encode(errors="replace").decode()
