"""A Ray cluster as trials see it: nodes with slots, and tasks on one given node or on any of several."""

from __future__ import annotations

import logging
import socket
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from autotune.errors import EnvironmentFailure
from autotune.execution.nodes import Node

log = logging.getLogger(__name__)

LATE_S = 30.0
"""Seconds after its deadline on the node: Ray has to find a worker, and the worker has to load PyTorch."""
_KNOCK_S = 10.0
_LEFT_AT_HOME = ["studies", ".git", ".venv", "venv", "__pycache__", "*.pyc", "*.db"]
"""Not sent to the nodes with the code's folder; nor is what its .gitignore names."""


class RayCluster:
    """The cluster at `execution.address` of a resolved spec, joined."""

    def __init__(self, spec: dict[str, Any], code: Path | None) -> None:
        """`code`: the folder whose modules the nodes need; None where they need none.

        Raises EnvironmentFailure where Ray is missing, or has no cluster there.
        """
        try:
            import ray
        except ModuleNotFoundError as error:
            raise EnvironmentFailure(
                "execution.backend: ray is not installed; pip install 'autotune-train[ray]', here and on every node"
            ) from error
        self._ray: Any = ray
        self._device = str(spec.get("device", "auto"))
        self._execution: dict[str, Any] = spec["execution"]
        self.exceptions: Any = ray.exceptions
        # Ray would print long messages about its nodes to stdout; autotune reports such events in one sentence.
        ray._private.worker._worker_logs_enabled = False
        address = str(self._execution.get("address", "auto"))
        try:
            _knock(address)
            with tempfile.TemporaryDirectory() as empty:
                # Without a folder of their own, workers would look for modules in the current folder first.
                environment = {"working_dir": str(code or empty), "excludes": _LEFT_AT_HOME}
                ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            raise EnvironmentFailure(
                f"execution.address: no Ray cluster at {address}: {first_line(error)}; `ray start --head` starts one"
            ) from error

    def close(self) -> None:
        """Leave the cluster. This ends the workers of this program and everything that they run."""
        if self._ray.is_initialized():
            self._ray.shutdown()

    def alive(self) -> dict[str, dict[str, float]]:
        """The resources of every living node, by its id."""
        return {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}

    def nodes(self) -> list[Node]:
        """Every living node with room for a trial. Raises EnvironmentFailure where there is none."""
        alive = self.alive()
        gpus = self._gpus(alive.values())
        found = [Node(id=node, slots=self._slots(resources, gpus)) for node, resources in sorted(alive.items())]
        with_room = [node for node in found if node.slots]
        if not with_room:
            raise EnvironmentFailure("execution: no node of the Ray cluster has the CPUs and GPUs that a trial needs")
        return with_room

    def on_node(self, node: Node, function: Callable[..., Any], *arguments: Any) -> Any:
        """Start a task on `node` only; the function gets the node's id, its slots, and `arguments`."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        strategy = NodeAffinitySchedulingStrategy(node.id, soft=False)
        return self._task(function, node, scheduling_strategy=strategy).remote(node.slots, *arguments)

    def on_any(self, nodes: Sequence[Node], function: Callable[..., Any], *arguments: Any) -> Any:
        """Start a task on any of `nodes` that has room; the nodes are of one kind."""
        allowed = ",".join(node.id for node in nodes)
        task = self._task(function, nodes[0], label_selector={"ray.io/node-id": f"in({allowed})"})
        return task.remote(nodes[0].slots, *arguments)

    def on_each(
        self, nodes: Sequence[Node], function: Callable[..., Any], *arguments: Any, deadline_s: float
    ) -> dict[Node, Any]:
        """The answers of a task that runs on every node at the same time: a `problem` if it raised. Nodes that are gone
        or late have no answer."""
        tasks = {self.on_node(node, function, *arguments): node for node in nodes}
        done, late = self._ray.wait(list(tasks), num_returns=len(tasks), timeout=deadline_s + LATE_S)
        for task in late:
            self._ray.cancel(task, force=True)
        answers: dict[Node, Any] = {}
        for task in done:
            try:
                answers[tasks[task]] = self._ray.get(task)
            except self.exceptions.RayTaskError as error:
                log.warning("node %s: %s", tasks[task].id, error)
                answers[tasks[task]] = {"host": tasks[task].id[:8], "problem": raised(error)}
            except self.exceptions.RayError as error:
                log.warning("node %s: %s", tasks[task].id, first_line(error))
        return answers

    def answer(self, task: Any, deadline_s: float) -> Any:
        """The answer of a task. If it gives none in time, the task is cancelled and the result is None. Raises
        RayError."""
        done, _ = self._ray.wait([task], timeout=deadline_s + LATE_S)
        if done:
            return self._ray.get(task)
        self._ray.cancel(task, force=True)
        return None

    def _task(self, function: Callable[..., Any], node: Node, **options: Any) -> Any:
        """Ray never retries it: the caller decides, with what it has learned meanwhile."""
        alive = self.alive()
        share = alive.get(node.id, {}).get("CPU", 1.0) // node.slots
        cpus = self._execution.get("cpus_per_trial") or share
        needs = {"num_cpus": cpus, "num_gpus": self._gpus(alive.values()), "max_retries": 0}
        return self._ray.remote(function).options(**needs, **options)

    def _gpus(self, resources: Iterable[dict[str, float]]) -> int:
        """GPUs of a trial."""
        has_any = any(each.get("GPU", 0) for each in resources)
        wanted = self._device.startswith("cuda") or (self._device == "auto" and has_any)
        return int(self._execution.get("ranks_per_trial", 1)) if wanted else 0

    def _slots(self, resources: dict[str, float], gpus: int) -> int:
        cpus = int(resources.get("CPU", 0))
        each = self._execution.get("cpus_per_trial")
        by_cpus = cpus // each if each else cpus if gpus else min(cpus, 1)
        return min(by_cpus, int(resources.get("GPU", 0)) // gpus) if gpus else by_cpus


def _knock(address: str) -> None:
    """Raises OSError if nothing listens at `address`; Ray itself would take minutes to notice."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


def raised(error: Any) -> str:
    """What a task raised, taken from Ray's RayTaskError, whose own text begins with the traceback on the node."""
    return f"{type(error.cause).__name__}: {first_line(error.cause)}"


def first_line(error: Exception) -> str:
    """The first line of Ray's messages, which are long."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line.partition(". ")[0]
