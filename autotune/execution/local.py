"""Trials on this machine: a template process forks the processes of trials; this is the controller's side of it."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from autotune import host
from autotune.errors import AutotuneError, EnvironmentFailure, NoStableConfiguration, WorkloadError
from autotune.execution.backend import OnEvent
from autotune.execution.outcome import Outcome
from autotune.execution.place import ANYWHERE, Place
from autotune.execution.processes import Processes
from autotune.execution.residence import is_asked_again, was_killed
from autotune.execution.template import Template, TemplateDied
from autotune.records import Facts, TrialRequest, TrialResult, TrialStatus
from autotune.scratch import remove_abandoned, scratch_folder, socket_folder

log = logging.getLogger(__name__)

_LET_GO_S = 10.0
_RESTARTS_WITHIN_S = 30.0
"""Extra seconds, beyond the trial's own, to start a new template after the old one died."""
_MOST_RESTARTS = 3
_SCRATCH = "autotune-scratch-"
_PROBLEMS: dict[str, type[AutotuneError]] = {
    "WorkloadError": WorkloadError,
    "EnvironmentFailure": EnvironmentFailure,
    "NoStableConfiguration": NoStableConfiguration,
}


def remove_leftovers() -> None:
    """Remove the temporary files of searches that were killed; a new `LocalBackend` does so as well."""
    remove_abandoned(Path(tempfile.gettempdir()), _SCRATCH)


class LocalBackend:
    """Runs trials in forks of a template that has torch, timm and the data set's index loaded. A fork runs several
    trials, one after another, as long as that saves time."""

    slots = 1

    def __init__(
        self, spec: dict[str, Any], folder: Path, place: Place = ANYWHERE, *, keeps_processes: bool = True
    ) -> None:
        """`spec`: the resolved spec as JSON; `folder`: the spec's own, importable for factories; `place`: the devices
        and cores of the trials; `keeps_processes`: whether a process may keep its device and wait for the next trial.

        The template starts to load at once, so that the caller can load its own modules at the same time.
        """
        self._open = contextlib.ExitStack()
        scratch = self._open.enter_context(scratch_folder(Path(tempfile.gettempdir()), _SCRATCH))
        self._setting = {
            "spec": spec,
            "folder": str(folder),
            "scratch": str(scratch),
            "sockets": str(self._open.enter_context(socket_folder(scratch, _SCRATCH))),
            "cores": list(place.cores),
        }
        self._place = place
        self.remarks: list[str] = []
        self._template: Template | None = Template(self._setting, place.environment)
        self._processes = Processes(keep=keeps_processes)
        self._restarts = 0
        self._ready = False
        self._ended = False
        self._busy = threading.RLock()
        """Held by the thread that talks to the template."""

    def facts(self, deadline_s: float) -> Facts:
        began_s, kills = time.monotonic(), host.oom_kills()
        ends_at_s = began_s + deadline_s
        outcome = self._run("facts", None, ends_at_s, lambda _event: None)
        if outcome.was_killed and host.oom_kills() == kills:
            outcome = self._run("facts", None, ends_at_s, lambda _event: None)
        for event in outcome.of_kind("facts"):
            return Facts.model_validate(event.payload)
        self._raise_problems(outcome)
        if outcome.deadline_s is not None:
            raise NoStableConfiguration(
                f"the budget ended while the model and the data set were built, after {time.monotonic() - began_s:.0f} "
                "s; give a larger --budget, or find out what hangs in them"
            )
        _, failure = outcome.sudden_end()
        raise NoStableConfiguration(f"the workload cannot be built: {failure.reason}\n{outcome.output_tail}".rstrip())

    def run(self, request: TrialRequest, *, deadline_s: float, on_event: OnEvent) -> TrialResult:
        """Run the trial; if it fails and something else may be the cause, run it once more in a new process."""
        ends_at_s, kills = time.monotonic() + deadline_s, host.oom_kills()
        result = self._trial(request, ends_at_s, on_event)
        again = is_asked_again(result, kernel_killed=host.oom_kills() != kills)
        if again and time.monotonic() < ends_at_s:
            log.info("%s, but the trial may not be the cause; running it once more in a new process", result.status)
            alone = self._trial(request.model_copy(update={"in_any_process": False}), ends_at_s, on_event)
            return result if alone.status is TrialStatus.TIMEOUT and not was_killed(result) else alone
        return result

    def _trial(self, request: TrialRequest, ends_at_s: float, on_event: OnEvent) -> TrialResult:
        outcome = self._run("trial", request, ends_at_s, on_event)
        self._raise_problems(outcome)
        return outcome.result(request)

    def end(self) -> None:
        """Kill every process and wait for none; a `run` in another thread returns. Call `close` afterwards."""
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
        self._open.close()
        if held:
            self._busy.release()

    def _raise_problems(self, outcome: Outcome) -> None:
        for event in outcome.of_kind("problem"):
            kind = _PROBLEMS.get(event.payload["kind"], AutotuneError)
            problems = event.payload["problems"]
            raise kind(problems if issubclass(kind, WorkloadError) else "\n".join(problems))

    def _run(self, task: str, request: TrialRequest | None, ends_at_s: float, on_event: OnEvent) -> Outcome:
        """Run the task; if the template dies meanwhile, run it once more, because the task may not be the cause. If it
        dies again, the task counts as the cause."""
        with self._busy:
            outcome = self._run_alone(task, request, ends_at_s, on_event)
            has_ended = any(event.event in ("result", "facts", "problem") for event in outcome.events)
            if self._template is None and not has_ended and not self._ended and time.monotonic() < ends_at_s:
                outcome = self._run_alone(task, request, ends_at_s, on_event)
            return outcome

    def _run_alone(self, task: str, request: TrialRequest | None, ends_at_s: float, on_event: OnEvent) -> Outcome:
        outcome = Outcome(asked_at_s=time.monotonic())
        try:
            template = self._started_template(ends_at_s + (_RESTARTS_WITHIN_S if request else 0.0))
            if request is not None:  # waiting for a template does not count against the trial's time
                ends_at_s += time.monotonic() - outcome.asked_at_s
                outcome.asked_at_s = time.monotonic()
            try:
                self._processes.run(outcome, template, task, request, ends_at_s, on_event)
            except TemplateDied:
                raise
            except BaseException:  # such as Ctrl-C: the trial must end before the exception goes on
                self._discard_template()
                raise
        except TemplateDied as death:
            log.warning("the template process died: %s", death)
            self._discard_template()
            if time.monotonic() >= ends_at_s:
                outcome.deadline_s = ends_at_s - outcome.asked_at_s
        finally:
            outcome.ended_at_s = time.monotonic()
        return outcome

    def _started_template(self, ends_at_s: float) -> Template:
        """The template, loaded; restarted when the last one died."""
        if self._ended:
            raise TemplateDied("the backend was closed")
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
        if not messages and self._restarts:
            raise TemplateDied("its replacement did not start in time")
        if not messages:
            raise NoStableConfiguration(
                "the budget ended while PyTorch, your modules and the data set were loaded; give a larger --budget, or "
                "find out what hangs there"
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
        self._processes.forget()
        if self._template is not None:
            self._template.close()
        self._template = None
