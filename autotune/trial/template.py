"""The template: a process that imports and indexes once, and forks the processes of trials instead of starting
interpreters.

It never runs a torch operator and never touches an accelerator: OpenMP's threads and a CUDA context do not survive a
fork. A data set that takes long to open is opened once, in a fork that takes its place (`autotune.trial.opening`). If
forking is not safe (not Linux, or a user module that started threads), it starts a new interpreter for each trial. In
both cases the template owns the trial: it reaps it, and kills what it leaves behind.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from autotune.errors import AutotuneError, SpecError
from autotune.interpreter import environment, trial_command
from autotune.trial import isolation
from autotune.trial.channel import ControlLine
from autotune.trial.opening import count_threads, let_a_fork_open

if TYPE_CHECKING:
    from autotune.trial.job import Job, Pipes
    from autotune.workload import Prepared


def serve(control: socket.socket) -> None:
    """Prepare the workload that the first message describes, then run trials on request until the controller is
    gone."""
    isolation.adopt_orphans()
    line = ControlLine(control)
    hello = line.receive()
    if hello is None:
        return
    isolation.keep_to(hello[0].get("cores", []))
    template = _Template(line, hello[0])
    template.warm_up()
    template.run()


class _Template:
    def __init__(self, line: ControlLine, setting: dict[str, Any]) -> None:
        self._line = line
        self._setting = setting
        self._prepared: Prepared | None = None
        self._trials: dict[int, str] = {}

    def warm_up(self) -> None:
        """Load what every trial needs, and report whether trials can be forked from this process."""
        refusal = None if isolation.ON_LINUX else f"forking PyTorch is not safe on {sys.platform}"
        problems: list[str] = []
        reopened = None
        if refusal is None:
            try:
                refusal = self._prepare()
            except SpecError as error:
                problems = list(error.problems)
            except AutotuneError as error:
                problems = [str(error)]
        if refusal is None and self._prepared is not None:
            reopened = let_a_fork_open(self._prepared, self._line.socket.close)
        self._line.send({"event": "ready", "fork_refusal": refusal, "problems": problems, "reopened": reopened})

    def _prepare(self) -> str | None:
        """Prepare the workload; returns why the process must not be forked afterwards, or None."""
        with _without_garbage():
            from autotune.trial.job import prepare_workload
            from autotune.trial.problem import told_as_problem

            # Torch's start-up leaves idle OpenBLAS threads, which survive a fork; threads of the user's modules may
            # not.
            threads_of_libraries = count_threads()
            with told_as_problem("loading the workload"):
                self._prepared = prepare_workload(self._setting)
        if threading.active_count() > 1 or count_threads() > threads_of_libraries:
            return "a module of the workload started threads when it was imported"
        import torch

        touched = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return "a module of the workload initialised CUDA" if touched else None

    def run(self) -> None:
        with selectors.DefaultSelector() as selector, _child_deaths() as deaths:
            selector.register(self._line.socket, selectors.EVENT_READ)
            selector.register(deaths, selectors.EVENT_READ)
            alive = True
            while alive:
                ready = {key.fileobj for key, _ in selector.select()}
                if deaths in ready:
                    deaths.recv(4096)
                    self._reap()
                if self._line.socket in ready:
                    alive = self._obey()
        for pid in self._trials:
            isolation.kill_session(pid)
        isolation.sweep(keep=set())

    def _obey(self) -> bool:
        """Carry out what the controller asks; False when it is gone."""
        messages = self._line.receive()
        for message in messages or []:
            if "kill" in message:
                for pid, name in self._trials.items():
                    if name == message["kill"]:
                        isolation.kill_session(pid)
            else:
                self._start(message)
        return messages is not None

    def _start(self, message: dict[str, Any]) -> None:
        from autotune.trial.job import Job, Pipes

        pipes = Pipes(*self._line.take_descriptors(3))
        job = Job(setting=self._setting, task=message["task"])
        start = self._spawn if self._prepared is None or message["fresh"] else self._fork
        pid = start(job, pipes)
        for descriptor in pipes:
            os.close(descriptor)
        self._trials[pid] = message["run"]

    def _fork(self, job: Job, pipes: Pipes) -> int:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                self._line.socket.close()
                job.run_and_exit(self._prepared, pipes, parent=parent)
            finally:
                os._exit(1)
        return pid

    def _spawn(self, job: Job, pipes: Pipes) -> int:
        process = subprocess.Popen(
            trial_command("job", *pipes, os.getpid()),
            stdin=subprocess.PIPE,
            env=environment(),
            pass_fds=pipes,
            start_new_session=True,
        )
        assert process.stdin is not None  # noqa: S101 - for the type checker: PIPE was asked for
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(job.to_json().encode())
        return process.pid

    def _reap(self) -> None:
        for pid in list(self._trials):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done == 0:
                continue
            name = self._trials.pop(pid)
            isolation.kill_session(pid)
            isolation.sweep(keep=set(self._trials))
            self._line.send({"event": "exited", "run": name, "code": os.waitstatus_to_exitcode(status)})


@contextlib.contextmanager
def _without_garbage() -> Iterator[None]:
    """Switch garbage collection off meanwhile. What is loaded stays, and searching it would take a quarter of the time,
    again in each fork."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def _child_deaths() -> Any:
    """A socket that becomes readable when a child dies."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(-1)
        reader.close()
        writer.close()
