"""One job of an isolated process: isolate itself, run trials or inspect the workload, report, exit at once."""

from __future__ import annotations

import dataclasses
import faulthandler
import importlib
import json
import multiprocessing
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from autotune.errors import AutotuneError, SpecError
from autotune.records import TrialRequest
from autotune.spec import parse_spec
from autotune.trial import isolation
from autotune.trial.channel import Reporter, Requests
from autotune.trial.device import resolve_device
from autotune.trial.facts import gather_facts
from autotune.trial.problem import told_as_problem
from autotune.trial.resident import Resident
from autotune.workload import Prepared, prepare

Setting = dict[str, Any]
"""What all jobs of one study share: `spec` (resolved), `folder` (the spec's own), `scratch` (for temporary files),
`sockets` (for those of loader processes)."""


class Pipes(NamedTuple):
    """Descriptors of the process's ends."""

    requests: int
    events: int
    output: int


def prepare_workload(setting: Setting) -> Prepared:
    """Phase one of the workload, safe to run in the template."""
    # Loader processes that are killed leave their socket folders behind: here, not in /tmp.
    multiprocessing.current_process()._config["tempdir"] = setting["sockets"]  # type: ignore[attr-defined]
    folder = Path(setting["folder"])
    prepared = prepare(parse_spec(setting["spec"], folder), folder)
    # Each fork would spend seconds on these imports again. They come after the checks, so that mistakes are reported
    # sooner. Every optimizer imports the first.
    importlib.import_module("torch._dynamo")
    if prepared.spec.execution.ranks_per_trial > 1:
        importlib.import_module("autotune.trial.together")
    return prepared


@dataclass(frozen=True, kw_only=True)
class Job:
    setting: Setting
    task: Literal["trial", "facts"]

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        return cls(**json.loads(text))

    def run_and_exit(self, prepared: Prepared | None, pipes: Pipes, *, parent: int) -> None:
        """Run the job in this process, which runs nothing else, and end it without any clean-up that could hang.

        `prepared`: what the template has loaded; None in a fresh interpreter, which has to load it first.
        """
        _isolate(pipes.output, parent)
        report = Reporter(pipes.events)
        code = 0
        try:
            self._run(prepared, report, pipes)
        except SpecError as error:
            report("problem", {"kind": type(error).__name__, "problems": list(error.problems)})
        except AutotuneError as error:
            report("problem", {"kind": type(error).__name__, "problems": [str(error)]})
        except BaseException:  # noqa: BLE001 - outermost level of the process: a bug, with its traceback
            sys.excepthook(*sys.exc_info())
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _run(self, prepared: Prepared | None, report: Reporter, pipes: Pipes) -> None:
        device = resolve_device(parse_spec(self.setting["spec"], Path(self.setting["folder"])).device)
        if self.task == "facts":
            loaded = prepared or prepare_workload(self.setting)
            as_baseline = loaded.with_custom(loaded.spec.custom_baseline())
            with told_as_problem("building the workload"):
                report("facts", gather_facts(as_baseline, device).model_dump(mode="json"))
            return
        requests = Requests(pipes.requests)
        asked = requests.next()
        if asked is None:
            return
        request = TrialRequest.model_validate(asked)
        if request.config.world_size > 1:
            from autotune.trial.together import run_together  # half a second that others do not need

            run_together(prepared, self.setting, prepare_workload, request, device, pipes.events, report)
        else:
            loaded = prepared or prepare_workload(self.setting)
            Resident(loaded, device, report, Path(self.setting["scratch"])).serve(request, requests)


def _isolate(output: int, parent: int) -> None:
    """Start a new session, die with the parent (also everything that it forks), and send output to the controller."""
    isolation.lead_session()
    isolation.die_with_parent(parent)
    os.register_at_fork(after_in_child=isolation.die_with_parent)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(null)
    os.close(output)
    faulthandler.enable()  # a segfault leaves its traceback in the output, and so in the record
