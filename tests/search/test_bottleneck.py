"""The most useful sentence of the report: which side limits, and what would feed the other."""

from __future__ import annotations

from typing import Any

import pytest
from support.deciding import BASE, FOUR, TWO, ran
from support.facts import cpu_facts, cuda_facts

from autotune.config import TrainConfig
from autotune.records import Block, Facts, Measurement, Rates, TrialResult, TrialStatus
from autotune.search.bottleneck import NONE_TRIED, TriedWorkers, bottleneck, figures_of_rates
from autotune.search.figures import measurement_of
from autotune.search.tried_workers import tried_workers

MICRO = 100


def machine(cores: int, *, cpu: bool = False, threads: int = 1) -> Facts:
    facts = cpu_facts() if cpu else cuda_facts()
    changes = {"usable_cores": cores, "default_num_threads": threads}
    return facts.model_copy(update={"host": facts.host.model_copy(update=changes)})


def measured(**changes: Any) -> Measurement:
    values: dict[str, Any] = {
        "samples_per_s": 1000.0,
        "samples_per_s_ci95": None,
        "step_time_s": 0.1,
        "data_wait_fraction": 0.05,
        "copy_fraction": 0.05,
        "forward_backward_fraction": 0.8,
        "optimizer_fraction": 0.1,
        "peak_memory_bytes": 0,
        "steps": 10,
        **changes,
    }
    return Measurement(**values)


def said(
    supply: float,
    demand: float,
    workers: int,
    *,
    cpu_ms: float | None,
    facts: Facts,
    edges: float = 0.0,
    tried: TriedWorkers = NONE_TRIED,
    **knobs: Any,
) -> str:
    """Of rates in samples per second; `cpu_ms`: CPU milliseconds of loading a sample."""
    config = TrainConfig(micro_batch_size=MICRO, num_workers=workers, **knobs)
    figures = measured(
        supply_per_s=supply,
        demand_per_s=demand,
        fetch_s=MICRO * max(workers, 1) / supply,
        fetch_cpu_s=None if cpu_ms is None else MICRO * cpu_ms / 1000,
        epoch_edge_fraction=edges,
    )
    return bottleneck(figures, config, facts, tried)


GPU = machine(16)


def loader(supply: str, demand: str, remedy: str) -> str:
    return f"the loader is the limit: it delivers {supply} samples/s, the step could take {demand}; {remedy}"


def step(demand: str, supply: str) -> str:
    return f"the step is the limit: {demand} samples/s; the loader could deliver {supply}"


def would_have_to(times: str) -> str:
    return f"samples would have to load {times} times faster"


NOTHING = "more workers gain nothing"
TURNS = "loading and the step take turns, and loading takes 33 % of the time; "
ALONE = "the loader is the limit: the training process loads"
EVEN = "loader and step are about even: the loader delivers"


@pytest.mark.parametrize(
    ("supply", "demand", "workers", "cpu_ms", "facts", "sentence"),
    [
        # The H200: eight workers of 225 images a second each, on sixteen cores.
        (1780, 2700, 8, 4.4, GPU, loader("1,780", "2,700", "12 workers would feed the step")),
        # Loading waits: more workers than cores.
        (98, 300, 2, 1.0, machine(2), loader("98", "300", "6 workers would feed the step")),
        # Loading computes, and all cores do it already.
        (
            1780,
            2700,
            2,
            1.12,
            machine(2),
            loader("1,780", "2,700", f"{NOTHING}: loading keeps all 2 cores busy; {would_have_to('1.5')}"),
        ),
        (
            230,
            690,
            1,
            4.3,
            machine(1),
            loader("230", "690", f"{NOTHING}: loading keeps the only core busy; {would_have_to('3.0')}"),
        ),
        # Cores are left, but not enough of them.
        (
            1000,
            6000,
            4,
            4.0,
            GPU,
            loader("1,000", "6,000", "16 workers would raise that to about 4,000 samples/s, with all 16 cores busy"),
        ),
        # Far more workers than anybody starts.
        (
            10,
            900,
            2,
            0.1,
            GPU,
            loader("10", "900", "to feed the step would take 175 workers, or samples that load 90.0 times faster"),
        ),
        # Nobody has counted CPU seconds.
        (1780, 2700, 8, None, GPU, loader("1,780", "2,700", "12 workers would feed the step")),
        (
            200,
            900,
            8,
            None,
            GPU,
            loader(
                "200",
                "900",
                f"35 workers would feed the step if loading waits rather than computes; else {would_have_to('4.5')}",
            ),
        ),
        # Without workers, beside an accelerator.
        (235, 2700, 0, 4.2, GPU, f"{ALONE} 235 samples/s, the step could take 2,700; 12 workers would feed the step"),
        (900, 1000, 0, 0.5, GPU, f"{ALONE} 900 samples/s, the step could take 1,000; 2 workers would feed the step"),
        (4000, 4100, 0, 0.2, GPU, f"{EVEN} 4,000 samples/s, the step takes 4,100"),
        # The step.
        (3900, 2700, 16, 4.0, GPU, step("2,700", "3,900 (12 of 16 workers would do)")),
        (3900, 2700, 2, 0.2, GPU, step("2,700", "3,900")),
        (3900, 1200, 2, 0.2, GPU, step("1,200", "3,900 (1 of 2 workers would do)")),
        (3900, 8.254, 1, 0.2, GPU, step("8.25", "3,900")),
        (3900, 8.254, 0, 0.2, GPU, step("8.25", "3,900")),
        (2720, 2700, 8, 3.0, GPU, f"{EVEN} 2,720 samples/s, the step takes 2,700"),
        # On a CPU the step needs cores too.
        (
            300,
            400,
            2,
            3.0,
            machine(2, cpu=True, threads=2),
            loader("300", "400", f"{NOTHING}: loading and the step keep all 2 cores busy; {would_have_to('1.3')}"),
        ),
        (100, 400, 2, 0.1, machine(2, cpu=True, threads=2), loader("100", "400", "8 workers would feed the step")),
        (200, 100, 0, 5.0, machine(2, cpu=True, threads=1), f"{TURNS}1 worker would feed the step"),
        (
            200,
            100,
            0,
            5.0,
            machine(2, cpu=True, threads=2),
            f"{TURNS}1 worker would raise that to about 80 samples/s, with all 2 cores busy",
        ),
        (
            200,
            100,
            0,
            5.0,
            machine(1, cpu=True, threads=1),
            f"{TURNS}workers gain nothing: loading and the step keep the only core busy",
        ),
        (4000, 100, 0, 0.2, machine(2, cpu=True, threads=2), step("100", "4,000")),
    ],
)
def test_the_sentence(
    supply: float, demand: float, workers: int, cpu_ms: float | None, facts: Facts, sentence: str
) -> None:
    assert said(supply, demand, workers, cpu_ms=cpu_ms, facts=facts) == sentence


def test_of_several_processes_workers_are_counted_in_each() -> None:
    """Two processes with four cores and four workers each, which load 1,000 samples a second together."""
    sentence = said(1000, 1400, 4, cpu_ms=1.0, facts=machine(4), world_size=2)
    assert sentence.endswith("the step could take 1,400; 6 workers a process would feed the step")


def test_what_the_edges_of_epochs_cost_is_said_where_it_matters() -> None:
    assert said(3900, 2700, 2, cpu_ms=0.1, facts=GPU, edges=0.22).endswith(
        "; the starts of epochs cost 22 % of the time, because the queue is empty then"
    )
    assert "starts of epochs" not in said(3900, 2700, 2, cpu_ms=0.1, facts=GPU, edges=0.05)


@pytest.mark.parametrize(
    ("fractions", "workers", "facts", "sentence"),
    [
        ((0.35, 0.02, 0.59, 0.04), 8, GPU, "loader-bound: 35 % of the step waits for data"),
        ((0.35, 0.02, 0.59, 0.04), 0, GPU, "loader-bound: 35 % of the step waits for data"),
        ((0.35, 0.02, 0.59, 0.04), 0, machine(2, cpu=True), "compute-bound: 59 % of the step is forward and backward"),
        ((0.61, 0.02, 0.33, 0.04), 0, machine(2, cpu=True), "loader-bound: 61 % of the step waits for data"),
        ((0.03, 0.02, 0.91, 0.04), 8, GPU, "compute-bound: 91 % of the step is forward and backward"),
        ((0.03, 0.52, 0.41, 0.04), 8, GPU, "copy-bound: 52 % of the step copies batches to the device"),
        ((0.03, 0.02, 0.41, 0.54), 8, GPU, "optimizer-bound: 54 % of the step is the optimizer update"),
    ],
)
def test_records_without_rates_are_judged_by_their_phases(
    fractions: tuple[float, ...], workers: int, facts: Facts, sentence: str
) -> None:
    """A step that is fed ahead waits only where the loader is the slower: it is never compute-bound then."""
    names = ("data_wait_fraction", "copy_fraction", "forward_backward_fraction", "optimizer_fraction")
    figures = measured(**dict(zip(names, fractions, strict=True)))
    assert bottleneck(figures, TrainConfig(num_workers=workers), facts) == sentence


RATES = Rates(
    sustained_per_s=900.0,
    sustained_error=0.01,
    demand_per_s=1200.0,
    demand_error=0.01,
    supply_per_s=1000.0,
    supply_error=0.01,
    fetch_s=0.2,
    fetch_cpu_s=0.1,
    epoch_samples=9000,
    epoch_edge_s=1.0,
)


def run(rates: Rates | None) -> TrialResult:
    block = Block(steps=10, samples=1000, seconds=1.0, phases={"forward_backward": 1.0})
    return TrialResult(
        config=TrainConfig(num_workers=2), status=TrialStatus.OK, seed=0, blocks=(block,), rates=rates, wall_s=2.0
    )


def test_a_measurement_holds_the_rates_of_its_runs() -> None:
    figures = measurement_of(run(RATES))
    assert (figures.supply_per_s, figures.demand_per_s) == (1000.0, 1200.0)
    assert (figures.fetch_s, figures.fetch_cpu_s) == (0.2, 0.1)
    assert figures.epoch_edge_fraction == pytest.approx(0.1), "one second of ten"


def test_of_several_runs_it_holds_their_means_as_far_as_they_have_rates() -> None:
    faster = RATES.model_copy(update={"supply_per_s": 1200.0, "fetch_cpu_s": None, "epoch_samples": None})
    figures = figures_of_rates([run(RATES), run(faster), run(None)])
    assert figures["supply_per_s"] == pytest.approx(1100.0)
    assert figures["fetch_cpu_s"] == pytest.approx(0.1)
    assert figures["epoch_edge_fraction"] == pytest.approx(0.05)
    assert figures_of_rates([run(None)]) == {}
    assert measurement_of(run(None)).supply_per_s is None


@pytest.mark.parametrize(
    ("tried", "remedy"),
    [
        (TriedWorkers(), "1 worker would feed the step"),
        (TriedWorkers(speeds={1: 0.26}), "workers gain nothing: 1 worker was measured at 0.26 times its throughput"),
        (
            TriedWorkers(speeds={2: 0.9, 1: 0.3}),
            "workers gain nothing: 2 workers were measured at 0.90 times its throughput",
        ),
        (TriedWorkers(speeds={1: 0.7, 2: 1.2}), "2 workers were measured at 1.20 times its throughput"),
        (TriedWorkers(speeds={2: 1.4, 4: 0.9}), "1 worker would feed the step"),
        (TriedWorkers(wall_s=1e-5), "workers gain nothing: loading and the step keep all 2 cores busy"),
        (TriedWorkers(wall_s=1e-7), "1 worker would feed the step"),
    ],
)
def test_no_advice_against_what_was_measured(tried: TriedWorkers, remedy: str) -> None:
    """A tensor data set: a sample loads in a microsecond, and may take ten times as long to be handed over."""
    assert said(1e6, 4e5, 0, cpu_ms=0.001, facts=machine(2, cpu=True), tried=tried).endswith(f"; {remedy}")


def test_more_workers_that_were_slower_are_not_advised() -> None:
    slower = said(1780, 2700, 8, cpu_ms=4.4, facts=GPU, tried=TriedWorkers(wall_s=1.0, speeds={12: 0.8, 4: 0.5}))
    assert slower.endswith("; more workers gain nothing: 12 workers were measured at 0.80 times its throughput")
    assert said(1780, 2700, 8, cpu_ms=4.4, facts=GPU, tried=TriedWorkers(speeds={4: 0.5})).endswith(
        "would feed the step"
    )


def test_what_was_tried_of_workers() -> None:
    rates = RATES.model_copy(update={"supply_per_s": 50.0, "sustained_per_s": 40.0})
    records = [
        ran(TWO, 40.0, rates=rates),
        ran(TWO.replace(prefetch_factor=4), 60.0),
        ran(FOUR, TrialStatus.OOM),
        ran(FOUR.replace(amp_dtype="bf16"), 300.0, rates=rates),
        ran(BASE, 100.0, rates=rates),
    ]
    assert tried_workers(BASE, 120.0, records) == TriedWorkers(wall_s=2 / 50, speeds={2: 0.5})
    assert tried_workers(BASE, 120.0, []) == TriedWorkers()
    other = BASE.replace(micro_batch_size=64)
    assert tried_workers(other, 120.0, records) == TriedWorkers(wall_s=2 / 50, speeds={})
