"""Trials on a Ray cluster: each is a task with the CPUs and GPUs that it needs, on nodes of one kind and one speed.

Ray chooses the node of a trial, and notices when a node dies. The trial itself is the same isolated process as on one
machine.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from autotune.config import TrainConfig
from autotune.errors import EnvironmentFailure, NoStableConfiguration, WorkloadError
from autotune.execution import ray_node
from autotune.execution.backend import OnEvent, TrialLost
from autotune.execution.nodes import Node, fingerprint, level, of_one_kind, with_seconds_times
from autotune.execution.ray_cluster import RayCluster, first_line, raised
from autotune.records import Facts, Failure, TrialRequest, TrialResult, TrialStatus

log = logging.getLogger(__name__)

_MOST_LOSSES = 2
"""After one configuration was lost so often, it is suspected to be the cause."""


class RayBackend:
    """A cluster. The first trial runs on every node at the same time, to compare the nodes."""

    def __init__(self, spec: dict[str, Any], folder: Path) -> None:
        """`spec`: the resolved spec as JSON; `folder`: the spec's own. Raises EnvironmentFailure where there is no
        cluster."""
        self._execution: dict[str, Any] = spec["execution"]
        self._spec = _as_seen_from_anywhere(spec, folder)
        self._cluster = RayCluster(spec, folder if _has_code(spec) else None)
        self._factors: dict[Node, float] = {}
        """For each node in use: the factor by which seconds measured there are multiplied."""
        self._gone: set[Node] = set()
        """Nodes that took no task any more, which Ray goes on listing as alive for up to half a minute."""
        self._home: Node | None = None
        """Where trials alone run."""
        self._levelled = False
        self._in_flight = 0
        self._losses: dict[TrainConfig, int] = {}
        self._lock = threading.Lock()
        self.remarks: list[str] = []

    @property
    def slots(self) -> int:
        room = sum(node.slots for node in self._alive())
        return max(min(self._execution.get("trials_in_flight") or room, room), 1)

    def facts(self, deadline_s: float) -> Facts:
        """The facts of the kind of node that is used. Before that, every node builds the workload with its data."""
        nodes = self._cluster.nodes()
        answers = self._cluster.on_each(nodes, ray_node.look, self._spec, deadline_s, deadline_s=deadline_s)
        good: dict[Node, Facts] = {}
        problems: list[str] = []
        for node in nodes:
            answer = answers.get(node, {"host": node.id[:8], "problem": "it did not answer in time"})
            named = replace(node, name=f"{answer['host']}/{node.id[:6]}")
            if "facts" in answer:
                good[named] = Facts.model_validate(answer["facts"])
            else:
                problems.append(f"node {named.name}: {answer['problem']}")
        if not good:
            raise WorkloadError(problems)
        used, odd = of_one_kind({node: fingerprint(facts) for node, facts in good.items()})
        for sentence in (*(f"{problem}; it is not used" for problem in problems), *odd):
            self._remark(sentence)
        self._factors = dict.fromkeys(used, 1.0)
        self._remark(f"trials run on {len(used)} of {len(nodes)} nodes, {self.slots} at a time")
        return good[used[0]]

    def run(self, request: TrialRequest, *, deadline_s: float, on_event: OnEvent) -> TrialResult:
        if not self._levelled and request.side is None:
            return self._compare_nodes(request, deadline_s)
        with self._lock:
            alone = self._in_flight == 0
            self._in_flight += 1
        try:
            return self._run_on([self._at_home()] if alone else self._alive(), request, deadline_s)
        finally:
            with self._lock:
                self._in_flight -= 1

    def close(self) -> None:
        self._cluster.close()

    def _remark(self, sentence: str) -> None:
        log.warning("%s", sentence)
        self.remarks.append(sentence)

    def _alive(self) -> list[Node]:
        alive = self._cluster.alive()
        return [node for node in self._factors if node.id in alive and node not in self._gone]

    def _at_home(self) -> Node:
        """The node for trials that run alone: always the same one, as long as it lives. Raises EnvironmentFailure when
        none is left."""
        alive = self._alive()
        if not alive:
            raise EnvironmentFailure("all nodes that can run trials are gone; run the same command again")
        if self._home not in alive:
            if self._home is not None:
                self._remark(f"node {self._home.name} is gone; confirming runs continue on {alive[0].name}")
            self._home = alive[0]
        return self._home or alive[0]

    def _compare_nodes(self, request: TrialRequest, deadline_s: float) -> TrialResult:
        """Run the trial on every node; returns the result of the node of median speed. From then on, nodes that differ
        are left out, or their times are scaled to its speed."""
        asked = (self._spec, request.model_dump(mode="json"), deadline_s)
        answers = self._cluster.on_each(self._alive(), ray_node.run, *asked, deadline_s=deadline_s)
        results = {
            node: TrialResult.model_validate(answer["result"]) for node, answer in answers.items() if "result" in answer
        }
        self._levelled = True
        for node, answer in answers.items():
            if results and "problem" in answer:
                self._remark(f"node {node.name}: {answer['problem']}; it is not used")
        if not results:
            problems = [answer["problem"] for answer in answers.values()] or ["no node answered"]
            raise NoStableConfiguration(f"no node ran the first trial: {problems[0]}")
        if not any(result.blocks for result in results.values()):
            node, result = next(iter(results.items()))
            return with_seconds_times(result, 1.0, node)
        tolerance = float(self._execution.get("node_tolerance", 0.05))
        levelled = level(results, tolerance, normalise=self._execution.get("uneven_nodes") == "normalise")
        for sentence in levelled.remarks:
            self._remark(sentence)
        self._factors, self._home = dict(levelled.factors), levelled.reference
        return with_seconds_times(results[levelled.reference], 1.0, levelled.reference)

    def _run_on(self, nodes: list[Node], request: TrialRequest, deadline_s: float) -> TrialResult:
        exceptions = self._cluster.exceptions
        asked = (self._spec, request.model_dump(mode="json"), deadline_s)
        try:
            if len(nodes) == 1:
                task = self._cluster.on_node(nodes[0], ray_node.run, *asked)
            else:
                task = self._cluster.on_any(nodes or [self._at_home()], ray_node.run, *asked)
            answer = self._cluster.answer(task, deadline_s)
        except exceptions.OutOfMemoryError as error:
            reason = f"Ray killed it because its node ran out of memory: {first_line(error)}"
            return _without_result(request, TrialStatus.OOM, reason)
        except exceptions.RayTaskError as error:
            raise EnvironmentFailure(f"a node cannot run trials: {raised(error)}") from error
        except exceptions.TaskUnschedulableError as error:
            self._gone.update(nodes)  # the trial has not begun: nothing speaks against its configuration
            raise TrialLost(first_line(error)) from error
        except exceptions.RayError as error:
            return self._lost(request, error)
        if answer is None:
            raise TrialLost("no node had free CPUs and GPUs in time")
        if "problem" in answer:
            raise EnvironmentFailure(answer["problem"])
        result = TrialResult.model_validate(answer["result"])
        node = next(node for node in self._factors if node.id == answer["node"])
        return with_seconds_times(result, self._factors[node], node)

    def _lost(self, request: TrialRequest, error: Exception) -> TrialResult:
        """A failed result if this configuration was lost before; else raises TrialLost."""
        with self._lock:
            count = self._losses[request.config] = self._losses.get(request.config, 0) + 1
        if count < _MOST_LOSSES:
            raise TrialLost(first_line(error)) from error
        reason = f"lost {count} times, each time with the node or the worker that ran it: {first_line(error)}"
        return _without_result(request, TrialStatus.CRASHED, reason)


def _without_result(request: TrialRequest, status: TrialStatus, reason: str) -> TrialResult:
    failure = Failure(reason=reason)
    return TrialResult(config=request.config, status=status, seed=request.seed, wall_s=0.0, failure=failure)


def _as_seen_from_anywhere(spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The spec with absolute paths, for another node: the spec's folder is elsewhere there."""
    data = dict(spec["data"])
    for name, key in (("image_folder", "path"), ("timm", "root")):
        section = data.get(name)
        if section and section.get(key):
            data[name] = {**section, key: str((folder / Path(section[key]).expanduser()).absolute())}
    alone = {"backend": "local", "ranks_per_trial": spec["execution"].get("ranks_per_trial", 1)}
    return {**spec, "data": data, "execution": alone}


def _has_code(spec: dict[str, Any]) -> bool:
    """Whether the spec names modules that may be in its own folder."""
    training, data = spec.get("training", {}), spec["data"]
    optimizer = training.get("optimizer", {}).get("factory")
    named = (spec["model"].get("factory"), data.get("factory"), data.get("collate"), optimizer)
    return any(named) or ":" in training.get("loss", "")
