"""Which nodes of a cluster run trials: nodes of one kind and, after all have run the same trial, of one speed."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from autotune.records import Block, Facts, Rates, SideRate, TrialResult, WarmUp
from autotune.stats.sustained import sustained_per_s


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine of the cluster."""

    id: str
    name: str = ""
    """Shown in messages."""
    slots: int
    """How many trials it runs at the same time."""


def fingerprint(facts: Facts) -> str:
    """What must be equal for two nodes to be of one kind: device, driver, processor, PyTorch."""
    versions = facts.host.versions
    memory = round(facts.device.total_memory_bytes / (1 << 30))
    device = f"{facts.device.name} ({memory} GiB)" if facts.device.kind != "cpu" else "no accelerator"
    driver = f", driver {versions['driver']}" if "driver" in versions else ""
    return f"{device}{driver}, {facts.host.cpu}, PyTorch {versions.get('torch', 'unknown')}"


def of_one_kind(kinds: Mapping[Node, str]) -> tuple[list[Node], list[str]]:
    """The nodes of the kind that has the most slots, and one sentence about each node that is left out."""
    slots: Counter[str] = Counter()
    for node, kind in kinds.items():
        slots[kind] += node.slots
    ours = max(slots, key=lambda kind: slots[kind])
    used = [node for node, kind in kinds.items() if kind == ours]
    odd = [
        f"node {node.name} is not used: it has {kind}, the others {ours}"
        for node, kind in kinds.items()
        if kind != ours
    ]
    return used, odd


@dataclass(frozen=True)
class Levelled:
    """Nodes after all of them have run the same trial."""

    reference: Node
    """The node of median speed; trials that run alone run there."""
    factors: Mapping[Node, float]
    """For each node in use: its measured seconds are multiplied by this factor."""
    remarks: list[str]


def level(results: Mapping[Node, TrialResult], tolerance: float, *, normalise: bool) -> Levelled:
    """Compare the nodes by the trial that each of them ran; at least one node must have measured it.

    One that is off by more than `tolerance` is left out, or all figures are brought to the reference's speed.
    """
    rates = {node: _rate(result) for node, result in results.items() if _rate(result) > 0}
    middle = statistics.median_low(rates.values())
    reference = next(node for node, rate in rates.items() if rate == middle)
    factors: dict[Node, float] = {}
    remarks = [
        f"node {node.name} is not used: {_fault(result)}" for node, result in results.items() if node not in rates
    ]
    for node, rate in rates.items():
        ratio = rate / middle
        off = f"node {node.name} is {abs(ratio - 1):.0%} {'faster' if ratio > 1 else 'slower'} than {reference.name}"
        if normalise:
            factors[node] = ratio
            if abs(math.log(ratio)) > math.log1p(tolerance):
                remarks.append(f"{off} with the same trial; its measurements are scaled to that speed")
        elif abs(math.log(ratio)) <= math.log1p(tolerance):
            factors[node] = 1.0
        else:
            remarks.append(f"{off} with the same trial, and is not used (execution.node_tolerance)")
    return Levelled(reference, factors, remarks)


def with_seconds_times(result: TrialResult, factor: float, node: Node) -> TrialResult:
    """`result` as the reference node would have measured it, and where it was measured."""
    if factor == 1.0:
        return result.model_copy(update={"node": node.name})
    warm_up = result.warm_up
    changes = {
        "node": node.name,
        "seconds_times": factor,
        "blocks": tuple(_slower(block, factor) for block in result.blocks),
        "warm_up": warm_up.model_copy(update=_scaled(warm_up, factor)) if warm_up else None,
        "rates": _slower_rates(result.rates, factor) if result.rates else None,
        "side_rate": _slower_side(result.side_rate, factor) if result.side_rate else None,
    }
    return result.model_copy(update=changes)


def _slower(block: Block, factor: float) -> Block:
    phases = {phase: seconds * factor for phase, seconds in block.phases.items()}
    return block.model_copy(update={"seconds": block.seconds * factor, "phases": phases})


def _slower_rates(rates: Rates, factor: float) -> Rates:
    seconds = {"fetch_s": rates.fetch_s * factor, "epoch_edge_s": rates.epoch_edge_s * factor}
    per_s = {
        "sustained_per_s": rates.sustained_per_s / factor,
        "demand_per_s": rates.demand_per_s / factor,
        "supply_per_s": rates.supply_per_s / factor,
    }
    cpu_s = None if rates.fetch_cpu_s is None else rates.fetch_cpu_s * factor
    return rates.model_copy(update={**seconds, **per_s, "fetch_cpu_s": cpu_s})


def _slower_side(rate: SideRate, factor: float) -> SideRate:
    cpu_s = None if rate.fetch_cpu_s is None else rate.fetch_cpu_s * factor
    return rate.model_copy(update={"per_s": rate.per_s / factor, "fetch_cpu_s": cpu_s})


def _scaled(warm_up: WarmUp, factor: float) -> dict[str, float]:
    return {name: factor * getattr(warm_up, name) for name in ("seconds", "first_step_s", "first_wait_s")}


def _rate(result: TrialResult) -> float:
    return sustained_per_s(result) if result.blocks else 0.0


def _fault(result: TrialResult) -> str:
    return result.failure.reason if result.failure else "its trial produced no measurement"
