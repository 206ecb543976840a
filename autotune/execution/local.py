"""Trials on this machine: a template process that forks theirs, and the controller's end of its control socket."""

from __future__ import annotations

import itertools
import logging
import secrets
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from autotune.errors import AutotuneError, EnvironmentFailure, NoStableConfiguration, WorkloadError
from autotune.execution.backend import OnEvent
from autotune.execution.outcome import Outcome
from autotune.execution.place import ANYWHERE, Place
from autotune.execution.process import CLEAR, TrialProcess
from autotune.execution.residence import Residence, is_asked_again, may_join
from autotune.execution.template import HasFileno, Template, TemplateDied
from autotune.records import Facts, TrialEvent, TrialRequest, TrialResult, TrialStatus

log = logging.getLogger(__name__)

_KILL_GRACE_S = 5.0
_LEAVE_S = 10.0
"""Seconds that a process has after its result, to end or to get ready for another run."""
_LET_GO_S = 10.0
_MOST_RESTARTS = 3
_PROBLEMS: dict[str, type[AutotuneError]] = {
    "WorkloadError": WorkloadError,
    "EnvironmentFailure": EnvironmentFailure,
}


class LocalBackend:
    """Runs trials in forks of a template that has torch, timm and the data set's index loaded; in one after another of
    them as long as that pays."""

    slots = 1

    def __init__(
        self, spec: dict[str, Any], folder: Path, place: Place = ANYWHERE, *, keeps_processes: bool = True
    ) -> None:
        """`spec`: the resolved spec as JSON; `folder`: the spec's own, importable for factories; `place`: the devices
        and cores that trials have; `keeps_processes`: whether a process may wait for the next trial, with its device.

        The template starts to load at once, so that the caller can load its own things meanwhile.
        """
        self._scratch = tempfile.TemporaryDirectory(prefix="autotune-")
        self._setting = {
            "spec": spec,
            "folder": str(folder),
            "scratch": self._scratch.name,
            "cores": list(place.cores),
        }
        self._place = place
        self.remarks: list[str] = []
        self._template: Template | None = Template(self._setting, place.environment)
        self._runs = itertools.count()
        self._session = secrets.token_hex(3)
        self._keeps = keeps_processes
        self._residence = Residence()
        self._resident: TrialProcess | None = None
        """Waits for the next request."""
        self._restarts = 0
        self._ready = False
        self._ended = False
        self._busy = threading.RLock()
        """Held by whoever talks to the template."""

    def facts(self, deadline_s: float) -> Facts:
        outcome = self._run("facts", None, time.monotonic() + deadline_s, lambda _event: None)
        for event in outcome.of_kind("facts"):
            return Facts.model_validate(event.payload)
        self._raise_problems(outcome)
        if outcome.deadline_s is not None:
            raise NoStableConfiguration(
                f"the workload was not built after {outcome.deadline_s:.0f} s, and the budget is over; raise it, "
                "or look for what hangs in the model or the data set"
            )
        _, failure = outcome.sudden_end()
        raise NoStableConfiguration(f"the workload cannot be built: {failure.reason}\n{outcome.output_tail}".rstrip())

    def run(self, request: TrialRequest, *, deadline_s: float, on_event: OnEvent) -> TrialResult:
        """Where it fails in a process that has run others, which may be to blame, once more in a new one."""
        ends_at_s = time.monotonic() + deadline_s
        result = self._trial(request, ends_at_s, on_event)
        if is_asked_again(result) and time.monotonic() < ends_at_s:
            log.info("%s in a process that had run others; once more in a new one", result.status)
            alone = self._trial(request.model_copy(update={"in_any_process": False}), ends_at_s, on_event)
            return result if alone.status is TrialStatus.TIMEOUT else alone
        return result

    def _trial(self, request: TrialRequest, ends_at_s: float, on_event: OnEvent) -> TrialResult:
        outcome = self._run("trial", request, ends_at_s, on_event)
        self._raise_problems(outcome)
        return outcome.result(request)

    def end(self) -> None:
        """Kill every process and wait for none; a `run` in another thread comes back. To be followed by `close`."""
        self._ended = True
        template = self._template
        if template is not None:
            template.end()

    def close(self) -> None:
        held = self._busy.acquire(blocking=False)
        if not held:  # another thread follows a trial, and has to let go of it first
            self.end()
            held = self._busy.acquire(timeout=_LET_GO_S)
        self._ended = True
        self._discard_template()
        self._scratch.cleanup()
        if held:
            self._busy.release()

    def _raise_problems(self, outcome: Outcome) -> None:
        for event in outcome.of_kind("problem"):
            kind = _PROBLEMS.get(event.payload["kind"], AutotuneError)
            problems = event.payload["problems"]
            raise kind(problems if issubclass(kind, WorkloadError) else "\n".join(problems))

    def _run(self, task: str, request: TrialRequest | None, ends_at_s: float, on_event: OnEvent) -> Outcome:
        with self._busy:
            return self._run_alone(task, request, ends_at_s, on_event)

    def _run_alone(self, task: str, request: TrialRequest | None, ends_at_s: float, on_event: OnEvent) -> Outcome:
        outcome = Outcome(asked_at_s=time.monotonic())
        process = None
        try:
            process = self._process_for(task, request, self._started_template(ends_at_s))
            outcome.process, outcome.runs_before = f"{self._session}-{process.name}", len(process.ran)
            if request is None:
                process.let_go()
            else:
                process.ask(request)
            self._follow(process, request, outcome, ends_at_s, on_event)
        except TemplateDied as death:
            log.warning("the template process died: %s", death)
            self._discard_template()
        finally:
            if process is not None:
                self._take(process, outcome, on_event)
                outcome.output_tail = process.output.tail()
                if process is not self._resident:
                    process.close()
            outcome.ended_at_s = time.monotonic()
        return outcome

    def _process_for(self, task: str, request: TrialRequest | None, template: Template) -> TrialProcess:
        """The resident, where it lives and `request` may join it; else a new one, the resident having ended."""
        resident, self._resident = self._resident, None
        if resident is not None:
            lives = self._exit_code(resident, 0.0) is None
            if lives and request is not None and may_join(request, resident.ran):
                return resident
            if lives:
                self._end(resident)
            resident.close()
        return TrialProcess(template, f"{task}-{next(self._runs)}", task)

    def _end(self, process: TrialProcess) -> None:
        process.let_go()
        if self._exit_code(process, _LEAVE_S) is None:
            process.template.kill(process.name)
            if self._exit_code(process, _KILL_GRACE_S) is None:
                raise TemplateDied("it did not answer a kill")

    def _exit_code(self, process: TrialProcess, timeout_s: float, *others: HasFileno) -> int | None:
        """Wait for its end, for something to read from `others`, or until the time is over; None: it may still live."""
        for message in process.template.wait(others, timeout_s):
            if message.get("event") == "exited" and message["run"] == process.name:
                return int(message["code"])
        return None

    def _follow(
        self,
        process: TrialProcess,
        request: TrialRequest | None,
        outcome: Outcome,
        ends_at_s: float,
        on_event: OnEvent,
    ) -> None:
        """Pass events on until the process has exited or is ready for another request; kill it at its deadline, and on
        any exception here."""
        killed = False
        try:
            while True:
                left_s = ends_at_s - time.monotonic()
                outcome.exit_code = self._exit_code(process, left_s, process.lines, process.output)
                if outcome.exit_code is not None:
                    return
                for event in self._take(process, outcome, on_event):
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
                    raise TemplateDied("it did not answer a kill")
                outcome.deadline_s = ends_at_s - outcome.asked_at_s
                process.template.kill(process.name)
                killed, ends_at_s = True, time.monotonic() + _KILL_GRACE_S
        except TemplateDied:
            raise
        except BaseException:  # Ctrl-C above all: whatever it is, the trial must not outlive it
            self._discard_template()
            raise

    def _dismiss(self, process: TrialProcess, request: TrialRequest, result: TrialResult) -> None:
        """Have the process that has just said `result` get ready for another run where that pays, else end."""
        self._residence.note(request, result)
        if self._keeps and request.config.world_size == 1 and self._residence.is_worth_keeping:
            process.tell(CLEAR)
        else:
            process.let_go()

    def _take(self, process: TrialProcess, outcome: Outcome, on_event: OnEvent) -> list[TrialEvent]:
        events = process.events()
        for event in events:
            outcome.events.append(event)
            on_event(event)
        return events

    def _started_template(self, ends_at_s: float) -> Template:
        """The template, loaded; restarted when the last one died."""
        if self._ended:
            raise TemplateDied("the backend has been ended")
        if self._template is None:
            if self._restarts == _MOST_RESTARTS:
                raise EnvironmentFailure(f"the process that runs trials died {_MOST_RESTARTS + 1} times; giving up")
            self._restarts += 1
            self._template, self._ready = Template(self._setting, self._place.environment), False
        if not self._ready:
            self._await_ready(self._template, ends_at_s)
        return self._template

    def _await_ready(self, template: Template, ends_at_s: float) -> None:
        messages = template.wait([], ends_at_s - time.monotonic())
        if not messages:
            raise NoStableConfiguration(
                "the budget ended while PyTorch, the workload's modules and its data set were being loaded; raise it, "
                "or look for what hangs there"
            )
        if messages[0]["problems"]:
            raise WorkloadError(messages[0]["problems"])
        if messages[0]["fork_refusal"]:
            log.warning("each trial starts a fresh interpreter: %s", messages[0]["fork_refusal"])
        template.fresh = bool(messages[0]["fork_refusal"])
        if messages[0]["reopened"]:
            self.remarks = [f"each new process opens the data set again, which takes time: {messages[0]['reopened']}"]
            log.warning("%s", self.remarks[0])
        self._ready = True

    def _discard_template(self) -> None:
        if self._resident is not None:
            self._resident.close()
        self._resident = None
        if self._template is not None:
            self._template.close()
        self._template = None
