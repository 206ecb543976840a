"""Trials on this machine: a template process that forks them, and the controller's end of its control socket."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from autotune.errors import AutotuneError, EnvironmentFailure, NoStableConfiguration, WorkloadError
from autotune.execution.backend import OnEvent
from autotune.execution.outcome import Outcome
from autotune.execution.place import ANYWHERE, Place
from autotune.execution.streams import Drain, LineReader
from autotune.execution.template import Template, TemplateDied
from autotune.records import Facts, TrialEvent, TrialRequest, TrialResult
from autotune.scratch import scratch_folder

log = logging.getLogger(__name__)

_KILL_GRACE_S = 5.0
_LET_GO_S = 10.0
_MOST_RESTARTS = 3
_SCRATCH = "autotune-scratch-"
_PROBLEMS: dict[str, type[AutotuneError]] = {
    "WorkloadError": WorkloadError,
    "EnvironmentFailure": EnvironmentFailure,
}


class LocalBackend:
    """Runs trials in forks of a template that has torch, timm and the data set's index loaded."""

    slots = 1

    def __init__(self, spec: dict[str, Any], folder: Path, place: Place = ANYWHERE) -> None:
        """`spec`: the resolved spec as JSON; `folder`: the spec's own, importable for factories; `place`: the devices
        and cores that trials have.

        The template starts to load at once, so that the caller can load its own things meanwhile.
        """
        self._open = contextlib.ExitStack()
        scratch = self._open.enter_context(scratch_folder(Path(tempfile.gettempdir()), _SCRATCH))
        self._setting = {
            "spec": spec,
            "folder": str(folder),
            "scratch": str(scratch),
            "cores": list(place.cores),
        }
        self._place = place
        self.remarks: list[str] = []
        self._template: Template | None = Template(self._setting, place.environment)
        self._runs = itertools.count()
        self._restarts = 0
        self._ready = False
        self._ended = False
        self._busy = threading.RLock()
        """Held by whoever talks to the template."""

    def facts(self, deadline_s: float) -> Facts:
        outcome = self._run("facts", None, deadline_s, lambda _event: None)
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
        outcome = self._run("trial", request, deadline_s, on_event)
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
        self._open.close()
        if held:
            self._busy.release()

    def _raise_problems(self, outcome: Outcome) -> None:
        for event in outcome.of_kind("problem"):
            kind = _PROBLEMS.get(event.payload["kind"], AutotuneError)
            problems = event.payload["problems"]
            raise kind(problems if issubclass(kind, WorkloadError) else "\n".join(problems))

    def _run(self, task: str, request: TrialRequest | None, deadline_s: float, on_event: OnEvent) -> Outcome:
        with self._busy:
            return self._run_alone(task, request, deadline_s, on_event)

    def _run_alone(self, task: str, request: TrialRequest | None, deadline_s: float, on_event: OnEvent) -> Outcome:
        outcome = Outcome(asked_at_s=time.monotonic())
        ends_at_s = outcome.asked_at_s + deadline_s
        name = f"{task}-{next(self._runs)}"
        events_in, events_out = os.pipe()
        output_in, output_out = os.pipe()
        lines, output = LineReader(events_in), Drain(output_in)
        try:
            template = self._started_template(ends_at_s)
            message = {"run": name, "task": task}
            template.send(
                message | ({"request": request.model_dump(mode="json")} if request else {}), events_out, output_out
            )
            self._follow(template, name, outcome, ends_at_s, lines, output, on_event)
        except TemplateDied as death:
            log.warning("the template process died: %s", death)
            self._discard_template()
        finally:
            os.close(events_out)
            os.close(output_out)
            self._take(lines, outcome, on_event)
            outcome.output_tail = output.tail()
            outcome.ended_at_s = time.monotonic()
            lines.close()
            output.close()
        return outcome

    def _follow(
        self,
        template: Template,
        name: str,
        outcome: Outcome,
        ends_at_s: float,
        lines: LineReader,
        output: Drain,
        on_event: OnEvent,
    ) -> None:
        """Pass events on until the process has exited; kill it at its deadline, and on any exception here."""
        killed = False
        try:
            while True:
                for message in template.wait([lines, output], ends_at_s - time.monotonic()):
                    if message.get("event") == "exited" and message["run"] == name:
                        outcome.exit_code = message["code"]
                        return
                self._take(lines, outcome, on_event)
                output.read()
                if time.monotonic() < ends_at_s:
                    continue
                if killed:
                    raise TemplateDied("it did not answer a kill")
                outcome.deadline_s = ends_at_s - outcome.asked_at_s
                template.kill(name)
                killed, ends_at_s = True, time.monotonic() + _KILL_GRACE_S
        except TemplateDied:
            raise
        except BaseException:  # Ctrl-C above all: whatever it is, the trial must not outlive it
            self._discard_template()
            raise

    def _take(self, lines: LineReader, outcome: Outcome, on_event: OnEvent) -> None:
        for line in lines.read():
            event = TrialEvent.model_validate_json(line)
            outcome.events.append(event)
            on_event(event)

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
            self.remarks = [f"each trial opens the data set again, which takes time: {messages[0]['reopened']}"]
            log.warning("%s", self.remarks[0])
        self._ready = True

    def _discard_template(self) -> None:
        if self._template is not None:
            self._template.close()
        self._template = None
