"""Which nodes of a cluster are used: those of one kind, and of one speed or brought to it."""

from __future__ import annotations

import pytest
from support.facts import cpu_facts, cuda_facts
from support.runs import run, without_steps

from autotune.execution.nodes import Node, fingerprint, level, of_one_kind, with_seconds_times
from autotune.records import Block, Facts, TrialResult
from autotune.stats import throughput


def node(name: str, slots: int = 1) -> Node:
    return Node(id=name * 3, name=name, slots=slots)


A, B, C, D = map(node, "ABCD")


def at(samples_per_s: float) -> TrialResult:
    blocks = [Block(steps=10, samples=100, seconds=100 / samples_per_s, phases={"optimizer": 1.0}) for _ in range(3)]
    return run(blocks=blocks)


def with_versions(facts: Facts, **versions: str) -> Facts:
    return facts.model_copy(update={"host": facts.host.model_copy(update={"versions": versions})})


def test_a_kind_is_device_driver_processor_and_torch() -> None:
    facts = with_versions(cuda_facts(), torch="2.15.0", driver="570.86")
    assert fingerprint(facts) == "Test GPU (80 GiB), driver 570.86, Test CPU, PyTorch 2.15.0"
    others = [
        with_versions(cuda_facts(), torch="2.14.0", driver="570.86"),
        with_versions(cuda_facts(), torch="2.15.0", driver="580.10"),
        with_versions(cpu_facts(), torch="2.15.0"),
    ]
    assert len({fingerprint(other) for other in (*others, facts)}) == 4


def test_the_kind_with_the_most_slots_is_used_and_the_odd_ones_are_named() -> None:
    big = node("big", 8)
    used, odd = of_one_kind({A: "T4", B: "T4", big: "H100"})
    assert used == [big]
    assert odd == [f"node {name} is not used: it has T4, the others H100" for name in "AB"]


def test_a_node_that_is_off_is_left_out() -> None:
    levelled = level({A: at(100), B: at(97), C: at(80), D: at(103)}, 0.05, normalise=False)
    assert levelled.reference == B
    assert set(levelled.factors) == {A, B}
    assert set(levelled.factors.values()) == {1.0}
    assert any("node C is 18% slower than B" in remark and "not used" in remark for remark in levelled.remarks)
    assert any("node D is 6% faster" in remark for remark in levelled.remarks)


def test_figures_of_uneven_nodes_are_brought_to_the_speed_of_the_one_in_the_middle() -> None:
    results = {A: at(100), B: at(50), C: at(200)}
    levelled = level(results, 0.05, normalise=True)
    assert levelled.reference == A
    assert levelled.factors == pytest.approx({A: 1.0, B: 0.5, C: 2.0})
    for each, result in results.items():
        alike = with_seconds_times(result, levelled.factors[each], each)
        assert throughput(alike.blocks) == pytest.approx(100)
        assert all(sum(block.phases.values()) == pytest.approx(levelled.factors[each]) for block in alike.blocks)
        assert alike.node == each.name
        assert alike.seconds_times == (None if each == A else pytest.approx(levelled.factors[each]))


def test_a_node_that_cannot_run_the_trial_is_left_out() -> None:
    levelled = level({A: at(100), B: without_steps()}, 0.05, normalise=True)
    assert set(levelled.factors) == {A}
    assert len(levelled.remarks) == 1
    assert levelled.remarks[0].startswith("node B is not used")
