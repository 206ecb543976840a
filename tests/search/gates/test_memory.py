"""Gates on memory: leaks among the noise of allocators, and what must stay free."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from support.facts import cpu_facts, cuda_facts
from support.runs import GIB, MIB, block, machine, on_cpu, on_device, run

from autotune.records import TrialResult
from autotune.search.gates import (
    allocator_retries,
    host_memory_headroom,
    memory_growth,
    memory_headroom,
    shm_headroom,
)
from autotune.search.gates.memory import LONG_TRAINING_STEPS

BLOCKS, STEPS = 30, 4
"""Of a soak of 120 optimizer steps; the first ten blocks are those in which caches fill."""
EIGHTH = 0.125
"""A headroom that binary fractions hold: 2 GiB of the host's 16."""
HOST_LIMIT = 6 * GIB / LONG_TRAINING_STEPS
"""Bytes a step, where 8 GiB of the host are still to be had."""


def on_host(resident: Iterable[float], *, available: int = 8 * GIB) -> TrialResult:
    """A soak on a CPU; `resident`: bytes at the end of each block."""
    states = [machine(resident=int(used), available=available) for used in resident]
    return run(blocks=[block(state, steps=STEPS) for state in states], memory=on_cpu(GIB))


def on_gpu(allocated: Iterable[float], *, reserved: int = 40 * GIB) -> TrialResult:
    """A soak on a GPU of 80 GiB whose process keeps its size; `allocated`: bytes at the end of each block."""
    states = [machine(resident=GIB, allocated=int(used), retries=0) for used in allocated]
    return run(blocks=[block(state, steps=STEPS) for state in states], memory=on_device(reserved))


def leak(bytes_a_step: float, blocks: int = BLOCKS) -> list[float]:
    return [GIB + bytes_a_step * STEPS * (number + 1) for number in range(blocks)]


def resident_noise(seed: int, wide: float) -> np.ndarray:
    """Buffers that come and go around a mean: one block's end says nothing of the next."""
    return np.asarray(GIB + np.random.default_rng(seed).normal(0, wide, BLOCKS))


def random_walk(seed: int, stride: float) -> np.ndarray:
    """Fragments that add up, as often down as up."""
    return np.asarray(GIB + np.cumsum(np.random.default_rng(seed).normal(0, stride, BLOCKS)))


def filling_cache(until: int, size: float = 2 * GIB) -> np.ndarray:
    """Grows, ever more slowly, until block number `until`."""
    filled = 1 - np.exp(-3 * np.minimum(np.arange(1, BLOCKS + 1) / until, 1.0))
    return np.asarray(GIB + size * filled / filled[-1])


def test_a_mebibyte_a_step_on_the_host_is_a_leak() -> None:
    check = memory_growth(on_host(leak(MIB)), cpu_facts(), EIGHTH)
    assert not check.passed
    assert check.value == pytest.approx(MIB)
    assert check.limit == pytest.approx(HOST_LIMIT)
    assert check.detail == "host memory: 1 MiB a step"


def test_a_mebibyte_a_step_on_the_device_is_a_leak() -> None:
    check = memory_growth(on_gpu(leak(MIB)), cuda_facts(), EIGHTH)
    assert not check.passed
    assert check.value == pytest.approx(MIB)
    assert check.limit == pytest.approx((70 - 40) * GIB / LONG_TRAINING_STEPS)
    assert check.detail == "device memory: 1 MiB a step"


def test_a_leak_on_the_host_shows_while_the_device_is_quiet() -> None:
    states = [machine(resident=int(used), allocated=20 * GIB) for used in leak(MIB)]
    leaking = run(blocks=[block(state, steps=STEPS) for state in states], memory=on_device(40 * GIB))
    check = memory_growth(leaking, cuda_facts(), EIGHTH)
    assert not check.passed
    assert check.detail == "host memory: 1 MiB a step"


@pytest.mark.parametrize("seed", range(5))
def test_a_leak_shows_through_noise(seed: int) -> None:
    noise = resident_noise(seed, 2 * MIB) - GIB
    check = memory_growth(on_host(noise + np.array(leak(MIB))), cpu_facts(), EIGHTH)
    assert not check.passed
    assert check.value == pytest.approx(MIB, rel=0.2)


def test_a_leak_in_the_loaders_processes_is_one_of_the_training() -> None:
    states = [machine(loader=int(used)) for used in leak(MIB)]
    leaking = run(blocks=[block(state, steps=STEPS) for state in states], memory=on_cpu(GIB))
    check = memory_growth(leaking, cpu_facts(), EIGHTH)
    assert not check.passed
    assert "host memory: 1 MiB a step" in check.detail


def test_a_leak_of_just_what_a_long_training_has_room_for_passes() -> None:
    """2 GiB stay free; what is left beyond them lasts 100,000 steps of 64 KiB."""
    available = 2 * GIB + LONG_TRAINING_STEPS * 65_536
    check = memory_growth(on_host(leak(65_536), available=available), cpu_facts(), EIGHTH)
    assert check.passed
    assert check.value == check.limit == 65_536
    assert not memory_growth(on_host(leak(65_537), available=available), cpu_facts(), EIGHTH).passed


def test_no_growth_at_all_has_room_where_there_is_none() -> None:
    full = on_host([GIB] * BLOCKS, available=GIB)
    check = memory_growth(full, cpu_facts(), EIGHTH)
    assert check.passed
    assert (check.value, check.limit) == (0.0, 0.0)
    assert not memory_growth(on_host(leak(1.0), available=GIB), cpu_facts(), EIGHTH).passed


def test_memory_that_stays_or_shrinks_does_not_grow() -> None:
    for bytes_a_step in (0.0, -MIB):
        check = memory_growth(on_host(leak(bytes_a_step)), cpu_facts(), EIGHTH)
        assert check.passed
        assert check.conclusive
        assert (check.value, check.detail) == (0.0, "")


def test_a_process_that_does_not_grow_is_judged_by_its_hosts_memory() -> None:
    check = memory_growth(on_host([GIB] * BLOCKS), cpu_facts(), EIGHTH)
    assert check.limit == pytest.approx(HOST_LIMIT)


@pytest.mark.parametrize("until", [3, 10])
def test_a_cache_that_is_full_after_a_third_is_none_of_it(until: int) -> None:
    for noise in (0.0, MIB):
        cached = filling_cache(until) + resident_noise(until, noise) - GIB
        assert memory_growth(on_host(cached), cpu_facts(), EIGHTH).value == 0.0


def test_a_cache_that_is_full_after_half_is_no_leak() -> None:
    assert memory_growth(on_host(filling_cache(15)), cpu_facts(), EIGHTH).value == 0.0


def test_a_data_set_kept_in_memory_looks_like_a_leak_until_it_is_all_there() -> None:
    """As the gate says of itself: only an epoch's end would tell."""
    assert not memory_growth(on_host(leak(588 * 1024)), cpu_facts(), EIGHTH).passed


def test_a_leak_that_comes_in_arenas_of_two_blocks_shows() -> None:
    """Coarser ones look like buffers that were asked for once."""
    arenas = [math.ceil(used / (8 * MIB)) * 8 * MIB for used in leak(MIB)]
    check = memory_growth(on_host(arenas), cpu_facts(), EIGHTH)
    assert not check.passed
    assert check.value == pytest.approx(MIB, rel=0.1)


def test_a_buffer_that_is_asked_for_once_is_no_leak() -> None:
    for late in range(10, BLOCKS):
        once = [GIB + (512 * MIB if number >= late else 0) for number in range(BLOCKS)]
        assert memory_growth(on_host(once), cpu_facts(), EIGHTH).value == 0.0


def false_alarms(soaks: Sequence[TrialResult]) -> int:
    return sum(not memory_growth(soak, cpu_facts(), EIGHTH).passed for soak in soaks)


@pytest.mark.parametrize("wide", [4096.0, MIB, 200.0 * MIB])
def test_buffers_that_come_and_go_raise_no_alarm(wide: float) -> None:
    assert false_alarms([on_host(resident_noise(seed, wide)) for seed in range(300)]) == 0


@pytest.mark.parametrize("stride", [4096.0, MIB, 16.0 * MIB])
def test_a_random_walk_raises_no_alarm(stride: float) -> None:
    """One in a hundred at the most, and what luck adds to three of 300, however far it strays."""
    assert false_alarms([on_host(random_walk(seed, stride)) for seed in range(300)]) <= 7


@pytest.mark.parametrize("blocks", [0, 1, 10])
def test_fewer_than_eight_blocks_after_the_first_third_show_no_trend(blocks: int) -> None:
    check = memory_growth(on_host(leak(MIB, blocks)), cpu_facts(), EIGHTH)
    assert (check.passed, check.conclusive) == (True, False)
    assert check.detail == f"{blocks - blocks // 3} blocks are too few to see a trend"


def test_eight_blocks_after_the_first_third_are_enough() -> None:
    assert not memory_growth(on_host(leak(MIB, 12)), cpu_facts(), EIGHTH).passed


def test_blocks_during_which_nobody_looked_at_the_machine_tell_nothing() -> None:
    check = memory_growth(run(blocks=[block(steps=STEPS)] * BLOCKS), cpu_facts(), EIGHTH)
    assert (check.passed, check.conclusive) == (True, False)


def test_retries_of_the_warm_up_are_none_of_it() -> None:
    states = [machine(retries=3) for _ in range(10)]
    check = allocator_retries([run(blocks=[block(state) for state in states])])
    assert check.passed
    assert check.conclusive
    assert (check.value, check.limit) == (0, 0)


def test_one_retry_after_the_warm_up_fails() -> None:
    states = [machine(retries=count) for count in [3, 3, 3, 4, 4]]
    check = allocator_retries([run(blocks=[block(state) for state in states])])
    assert not check.passed
    assert (check.value, check.limit) == (1, 0)


def test_retries_add_up_over_all_runs() -> None:
    runs = [run(blocks=[block(machine(retries=count)) for count in counts]) for counts in ([0, 2], [5, 5], [1, 4])]
    assert allocator_retries(runs).value == 5


@pytest.mark.parametrize("runs", [[], [run()], [run(blocks=[block(), block(machine())])]])
def test_retries_that_nobody_counted_tell_nothing(runs: list[TrialResult]) -> None:
    check = allocator_retries(runs)
    assert (check.passed, check.conclusive) == (True, False)


def test_a_cpus_headroom_is_the_hosts() -> None:
    check = memory_headroom([run(memory=on_cpu(4 * GIB)), run(memory=on_cpu(2 * GIB))], cpu_facts(), 0.10)
    assert check.passed
    assert (check.value, check.limit) == (0.75, 0.10)
    assert not memory_headroom([run(memory=on_cpu(15 * GIB))], cpu_facts(), 0.10).passed


def test_an_accelerators_headroom_is_what_its_allocator_left() -> None:
    runs = [run(memory=on_device(40 * GIB)), run(memory=on_device(60 * GIB))]
    check = memory_headroom(runs, cuda_facts(), 0.25)
    assert check.value == pytest.approx(0.25)
    assert check.passed
    assert not memory_headroom(runs, cuda_facts(), 0.26).passed


@pytest.mark.parametrize("runs", [[], [run(memory=None)]])
def test_memory_that_nobody_saw_is_not_free(runs: list[TrialResult]) -> None:
    assert not memory_headroom(runs, cpu_facts(), 0.10).passed


def with_states(*states: dict[str, int]) -> list[TrialResult]:
    """One run of one block each."""
    return [run(blocks=[block(machine(**state))]) for state in states]


def test_the_hosts_headroom_is_that_of_the_worst_block() -> None:
    check = host_memory_headroom(with_states({"available": 8 * GIB}, {"available": 4 * GIB}), cpu_facts(), 0.25)
    assert check.passed
    assert check.conclusive
    assert (check.value, check.limit) == (0.25, 0.25)
    assert not host_memory_headroom(with_states({"available": 4 * GIB - 1}), cpu_facts(), 0.25).passed


def test_shared_memory_that_fills_up_fails() -> None:
    filling = [run(blocks=[block(machine(shm_free=(8 - number) * GIB)) for number in range(9)])]
    check = shm_headroom(filling, cpu_facts(), 0.10)
    assert not check.passed
    assert (check.value, check.limit) == (0.0, 0.10)


@pytest.mark.parametrize(("free", "passes"), [(GIB, True), (GIB - 1, False)])
def test_an_eighth_of_shared_memory_has_to_stay_free(free: int, passes: bool) -> None:
    check = shm_headroom(with_states({"shm_free": 7 * GIB}, {"shm_free": free}), cpu_facts(), EIGHTH)
    assert check.passed is passes
    assert check.value == pytest.approx(EIGHTH)


@pytest.mark.parametrize("runs", [[], [run()], [run(blocks=[block()])]])
def test_a_machine_that_nobody_looked_at_tells_nothing(runs: list[TrialResult]) -> None:
    for check in (host_memory_headroom(runs, cpu_facts(), 0.1), shm_headroom(runs, cpu_facts(), 0.1)):
        assert (check.passed, check.conclusive, check.detail) == (True, False, "not measured")


def test_a_machine_without_shared_memory_tells_nothing() -> None:
    assert not shm_headroom(with_states({"available": GIB}), cpu_facts(), 0.1).conclusive
