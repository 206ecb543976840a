"""The processes that trials run in, one at a time: followed to a result, killed at a deadline, kept while that saves
time."""

from __future__ import annotations

import itertools
import logging
import secrets
import time

from autotune.execution.backend import OnEvent
from autotune.execution.outcome import Outcome
from autotune.execution.process import CLEAR, TrialProcess
from autotune.execution.residence import Residence, may_join
from autotune.execution.template import HasFileno, Template, TemplateDied
from autotune.records import TrialEvent, TrialRequest, TrialResult

log = logging.getLogger(__name__)

_KILL_GRACE_S = 5.0
_LEAVE_S = 10.0
"""Seconds that a process has after its result, to end or to get ready for another run."""


class Processes:
    """The processes of one template after another."""

    def __init__(self, *, keep: bool) -> None:
        """`keep`: whether a process may wait for the next request."""
        self._keep = keep
        self._names = itertools.count()
        self._session = secrets.token_hex(3)
        self._residence = Residence()
        self._resident: TrialProcess | None = None
        """Waits for the next request."""
        self._codes: dict[str, int] = {}
        """Exit codes that nobody has asked for yet: the resident may end while another process runs."""

    def run(
        self,
        outcome: Outcome,
        template: Template,
        task: str,
        request: TrialRequest | None,
        ends_at_s: float,
        on_event: OnEvent,
    ) -> None:
        """Run `task` until `ends_at_s`, and collect its results in `outcome`. Raises TemplateDied. After any exception,
        the caller must end the template, and with it the process."""
        process = self._process_for(task, request, template)
        outcome.process, outcome.runs_before = f"{self._session}-{process.name}", len(process.ran)
        try:
            if request is None:
                process.let_go()
            else:
                process.ask(request)
            self._follow(process, request, outcome, ends_at_s, on_event)
        finally:
            _take(process, outcome, on_event)
            outcome.output_tail = process.output.tail()
            if process is not self._resident:
                process.close()

    def forget(self) -> None:
        """Forget all processes, because the template and its processes have ended."""
        if self._resident is not None:
            self._resident.close()
        self._resident = None
        self._codes.clear()

    def _process_for(self, task: str, request: TrialRequest | None, template: Template) -> TrialProcess:
        """The resident process, if it is alive and `request` may run in it; else a new process. The resident is ended
        before that, except when the new process needs no device."""
        if request is not None and request.side == "loader":
            return TrialProcess(template, f"{task}-{next(self._names)}", task)
        resident, self._resident = self._resident, None
        if resident is not None:
            joins = False
            try:
                lives = self._exit_code(resident, 0.0) is None
                joins = lives and request is not None and may_join(request, resident.ran)
                if lives and not joins:
                    self._end(resident)
            finally:
                if not joins:
                    resident.close()
            if joins:
                return resident
        return TrialProcess(template, f"{task}-{next(self._names)}", task)

    def _follow(
        self,
        process: TrialProcess,
        request: TrialRequest | None,
        outcome: Outcome,
        ends_at_s: float,
        on_event: OnEvent,
    ) -> None:
        """Pass events on until the process has exited or is ready for another request; kill it at its deadline."""
        killed = False
        while True:
            left_s = ends_at_s - time.monotonic()
            outcome.exit_code = self._exit_code(process, left_s, process.lines, process.output)
            if outcome.exit_code is not None:
                return
            for event in _take(process, outcome, on_event):
                if event.event == "result" and request is not None:
                    self._dismiss(process, request, outcome.result(request))
                    ends_at_s = min(ends_at_s, time.monotonic() + _LEAVE_S)
                if event.event == "cleared" and not event.payload["spoiled"]:
                    self._resident = process
                    return
                if event.event == "cleared":
                    log.info("the process of %s ends: %s", process.name, event.payload["spoiled"])
            process.output.read()
            if time.monotonic() < ends_at_s:
                continue
            if killed:
                raise TemplateDied("it survived SIGKILL")
            outcome.deadline_s = ends_at_s - outcome.asked_at_s
            process.template.kill(process.name)
            killed, ends_at_s = True, time.monotonic() + _KILL_GRACE_S

    def _dismiss(self, process: TrialProcess, request: TrialRequest, result: TrialResult) -> None:
        """After `result`: let the process get ready for another run if that saves time, else let it end."""
        self._residence.note(request, result)
        keep = self._keep and request.config.world_size == 1 and request.side != "loader"
        if keep and self._residence.is_worth_keeping:
            process.tell(CLEAR)
        else:
            process.let_go()

    def _end(self, process: TrialProcess) -> None:
        process.let_go()
        if self._exit_code(process, _LEAVE_S) is None:
            process.template.kill(process.name)
            if self._exit_code(process, _KILL_GRACE_S) is None:
                raise TemplateDied("it survived SIGKILL")

    def _exit_code(self, process: TrialProcess, timeout_s: float, *others: HasFileno) -> int | None:
        """Wait for its end, for something to read from `others`, or for the timeout; None: it may still be alive."""
        if process.name not in self._codes:
            for message in process.template.wait(others, timeout_s):
                if message.get("event") == "exited":
                    self._codes[message["run"]] = int(message["code"])
        return self._codes.pop(process.name, None)


def _take(process: TrialProcess, outcome: Outcome, on_event: OnEvent) -> list[TrialEvent]:
    events = process.events()
    for event in events:
        outcome.events.append(event)
        on_event(event)
    return events
