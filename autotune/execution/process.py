"""The controller's handle on a trial's process: what it is asked, what it reports, what it prints."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from autotune.config import TrainConfig
from autotune.execution.streams import Drain, LineReader
from autotune.execution.template import Template
from autotune.records import TrialEvent, TrialRequest

CLEAR = "clear"
"""Message after a result: get ready for another request."""


class TrialProcess:
    """Starts with the first request, or with `let_go` if there is none. After `let_go` it ends by itself, and the
    template reports `exited`."""

    def __init__(self, template: Template, name: str, task: str) -> None:
        """Raises TemplateDied."""
        self.template = template
        self.name = name
        self.ran: list[TrainConfig] = []
        """Configurations that it has run, the present one included."""
        requests_out, self._requests = os.pipe()
        events_in, events_out = os.pipe()
        output_in, output_out = os.pipe()
        self.lines, self.output = LineReader(events_in), Drain(output_in)
        self._is_asked = True
        try:
            template.send({"run": name, "task": task}, requests_out, events_out, output_out)
        except BaseException:
            self.close()
            raise
        finally:
            for descriptor in (requests_out, events_out, output_out):
                os.close(descriptor)

    def ask(self, request: TrialRequest) -> None:
        self.output.restart()
        self.ran.append(request.config)
        self.tell(request.model_dump(mode="json"))

    def tell(self, message: Any) -> None:
        """Send `message`. A process that has ended does not receive it; the template reports its end."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._requests, json.dumps(message).encode() + b"\n")

    def let_go(self) -> None:
        """Tell the process that no more requests follow."""
        if self._is_asked:
            os.close(self._requests)
            self._is_asked = False

    def events(self) -> list[TrialEvent]:
        """The events that have arrived since the last call."""
        return [TrialEvent.model_validate_json(line) for line in self.lines.read()]

    def close(self) -> None:
        self.let_go()
        self.lines.close()
        self.output.close()
