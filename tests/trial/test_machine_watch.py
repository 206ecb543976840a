"""What else the machine does: judged from tables, read from a fake NVML, and measured on the machine that runs this.

The real measurements compare with a bare one taken next to them, in wide bands: whoever shares the machine counts too.
"""

from __future__ import annotations

import collections
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from autotune.records import MachineState
from autotune.trial.machine_watch import MachineWatch, disturbances
from autotune.trial.nvml import _REASONS, GpuReading, GpuSensors

CPU = torch.device("cpu")
BURN = [sys.executable, "-c", "while True: pass"]


def state(**known: Any) -> MachineState:
    return MachineState(available_memory_bytes=0, resident_bytes=0, **known)


@pytest.mark.parametrize(
    ("outside", "own", "seconds", "cores", "contended"),
    [
        pytest.param(0.05, 1.9, 0.5, 2, False, id="a quiet machine"),
        pytest.param(0.7, 1.3, 0.5, 2, True, id="two threads and an intruder on two cores"),
        pytest.param(0.09, 1.85, 0.5, 2, False, id="less than a twentieth of the cores"),
        pytest.param(0.15, 1.75, 0.5, 2, True, id="more than a twentieth"),
        pytest.param(0.25, 1.75, 0.1, 2, False, id="so little could be ticks in a short block"),
        pytest.param(0.35, 1.65, 0.1, 2, True, id="more than ticks in a short block"),
        pytest.param(0.9, 1.1, 0.02, 2, False, id="hardly anything is sure in the shortest block"),
        pytest.param(2.0, 3.0, 0.5, 16, False, id="an accelerator's host with cores to spare"),
        pytest.param(14.0, 1.5, 0.5, 16, True, id="an accelerator's host without"),
        pytest.param(1.0, 0.1, 0.5, 2, False, id="waits for the disk beside one busy core"),
        pytest.param(None, 2.0, 0.5, 2, False, id="nobody counts"),
        pytest.param(1.0, None, 0.5, 2, True, id="own share unknown"),
    ],
)
def test_work_outside_contends_when_it_leaves_no_core_free(
    outside: float | None, own: float | None, seconds: float, cores: int, contended: bool
) -> None:
    found = disturbances(state(outside_load=outside, own_load=own), seconds, cores)
    assert found == (("contended",) if contended else ())


@pytest.mark.parametrize(("others", "found"), [(None, ()), (0, ()), (1, ("contended",)), (3, ("contended",))])
def test_others_on_the_device_contend(others: int | None, found: tuple[str, ...]) -> None:
    assert disturbances(state(other_device_processes=others, outside_load=0.0, own_load=1.0), 0.5, 16) == found


@pytest.mark.parametrize("reason", _REASONS.values())
def test_heat_and_power_supply_throttle_but_the_power_limit_does_not(reason: str) -> None:
    harmless = {"gpu_idle", "applications_clocks_setting", "sw_power_cap", "sync_boost", "display_clock_setting"}
    found = disturbances(state(throttle_reasons=("gpu_idle", reason)), 0.5, 2)
    assert found == (() if reason in harmless else ("throttled",))


def test_a_block_may_be_disturbed_twice() -> None:
    both = state(other_device_processes=1, throttle_reasons=("hw_slowdown",))
    assert disturbances(both, 0.5, 2) == ("contended", "throttled")


class FakeNvml:
    """pynvml with one GPU, on which `pids` compute. Its energy counter moves by 50 J a look.

    `unsupported`: names of the queries that the card refuses; `missing`: of those that this pynvml is too old for.
    """

    class NVMLError(Exception):
        pass

    class NVMLErrorNotSupported(NVMLError):
        pass

    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0

    def __init__(
        self, *, pids: list[int], unsupported: Set[str] = frozenset(), missing: Set[str] = frozenset()
    ) -> None:
        energy_mj = iter(range(1_000_000, 10_000_000, 50_000))
        self._answers: dict[str, Callable[..., Any]] = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetHandleByUUID": self._by_uuid,
            "nvmlDeviceGetClockInfo": lambda _, kind: {self.NVML_CLOCK_SM: 1410}[kind],
            "nvmlDeviceGetPowerUsage": lambda _: 312_500,
            "nvmlDeviceGetTemperature": lambda _, sensor: {self.NVML_TEMPERATURE_GPU: 61}[sensor],
            "nvmlDeviceGetCurrentClocksEventReasons": lambda _: 0x04 | 0x40,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda _: 0x08,
            "nvmlDeviceGetComputeRunningProcesses": lambda _: [SimpleNamespace(pid=pid) for pid in pids],
            "nvmlDeviceGetTotalEnergyConsumption": lambda _: next(energy_mj),
        }
        self._unsupported = unsupported
        self._missing = missing

    def __getattr__(self, name: str) -> Any:
        if name not in self._answers or name in self._missing:
            raise AttributeError(name)
        return self._refuse if name in self._unsupported else self._answers[name]

    def _by_uuid(self, uuid: str) -> str:
        if uuid != "GPU-4711":
            raise self.NVMLError("Not Found")
        return "handle"

    def _refuse(self, *_: Any) -> Any:
        raise self.NVMLErrorNotSupported


FULL = GpuReading(
    sm_clock_mhz=1410,
    power_w=312.5,
    temperature_c=61,
    throttle_reasons=("sw_power_cap", "hw_thermal_slowdown"),
    other_processes=0,
    energy_j=1000.0,
)


def sensors(**fake: Any) -> GpuSensors:
    return GpuSensors("4711", FakeNvml(**{"pids": [os.getpid()], **fake}))


def test_reads_all_sensors_of_the_gpu_with_torchs_uuid() -> None:
    assert sensors().read() == FULL


@pytest.mark.parametrize(
    ("query", "field", "without"),
    [
        ("nvmlDeviceGetClockInfo", "sm_clock_mhz", None),
        ("nvmlDeviceGetPowerUsage", "power_w", None),
        ("nvmlDeviceGetTemperature", "temperature_c", None),
        ("nvmlDeviceGetComputeRunningProcesses", "other_processes", None),
        ("nvmlDeviceGetTotalEnergyConsumption", "energy_j", None),
        ("nvmlDeviceGetCurrentClocksEventReasons", "throttle_reasons", ("hw_slowdown",)),
    ],
)
@pytest.mark.parametrize("how", ["unsupported", "missing"])
def test_a_query_that_fails_leaves_the_others(query: str, field: str, without: Any, how: str) -> None:
    """Throttling is asked for by its older name then."""
    assert vars(sensors(**{how: {query}}).read()) == {**vars(FULL), field: without}


def test_a_card_that_supports_nothing_reads_as_unknown() -> None:
    every = {name for name in FakeNvml(pids=[])._answers if name.startswith("nvmlDeviceGet")} - {
        "nvmlDeviceGetHandleByUUID"
    }
    assert sensors(unsupported=every).read() == GpuReading()


@pytest.mark.parametrize(
    "blind",
    [
        pytest.param(lambda: GpuSensors("MIG", FakeNvml(pids=[1])), id="a MIG slice is no GPU by that id"),
        pytest.param(lambda: GpuSensors(None, FakeNvml(pids=[1])), id="torch states no id"),
        pytest.param(lambda: sensors(unsupported={"nvmlInit"}), id="no driver"),
        pytest.param(lambda: sensors(unsupported={"nvmlDeviceGetHandleByUUID"}), id="no handle"),
        pytest.param(lambda: GpuSensors("4711"), id="the real library, and no GPU by that id"),
    ],
)
def test_without_a_gpu_that_nvml_knows_all_is_unknown(blind: Callable[[], GpuSensors]) -> None:
    assert (blind().read(), blind().energy_j()) == (GpuReading(), None)


@pytest.mark.parametrize(
    ("pids", "others"),
    [
        pytest.param([os.getpid()], 0, id="alone"),
        pytest.param([1, os.getpid(), 2], 2, id="in company"),
        pytest.param([10**8], 0, id="alone in a container: the host's id for this process"),
        pytest.param([10**8, 10**8 + 1], 1, id="in company in a container"),
        pytest.param([os.getpid(), os.getpid()], 0, id="listed twice"),
        pytest.param([], None, id="a list that hides this process hides others too"),
    ],
)
def test_counts_the_other_processes_on_the_device(pids: list[int], others: int | None) -> None:
    assert sensors(pids=pids).read().other_processes == others


def test_the_reasons_are_nvmls_own() -> None:
    pynvml = pytest.importorskip("pynvml")
    named = {bit: f"nvmlClocksEventReason{name.title().replace('_', '')}" for bit, name in _REASONS.items()}
    assert {bit: getattr(pynvml, name) for bit, name in named.items()} == {bit: bit for bit in _REASONS}


def test_every_query_is_one_of_pynvmls() -> None:
    pynvml = pytest.importorskip("pynvml")
    assert [name for name in FakeNvml(pids=[])._answers if not hasattr(pynvml, name)] == []


def test_the_state_takes_over_what_the_sensors_say() -> None:
    watch = MachineWatch(CPU, sensors(pids=[os.getpid(), 1]))
    watch.start()
    read = watch.read()
    assert (read.sm_clock_mhz, read.power_w, read.temperature_c, read.other_device_processes) == (1410, 312.5, 61, 1)
    assert read.throttle_reasons == FULL.throttle_reasons
    assert read.energy_j == 50.0


def test_energy_is_unknown_where_the_card_does_not_count_it() -> None:
    watch = MachineWatch(CPU, sensors(unsupported={"nvmlDeviceGetTotalEnergyConsumption"}))
    assert watch.read().energy_j is None


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command)
    try:
        time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def burn(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def seen(watch: MachineWatch, during: Callable[[], None] = lambda: time.sleep(0.3)) -> MachineState:
    watch.start()
    during()
    return watch.read()


def outside(read: MachineState) -> float:
    assert read.outside_load is not None
    return read.outside_load


def is_quiet(watch: MachineWatch, measure: Callable[[], MachineState]) -> bool:
    """Whether a busy core of the trial's own leaves the load outside as it was; tried again, as others come and go."""
    for _ in range(5):
        before, read = seen(watch), measure()
        assert read.own_load is not None and 0.2 < read.own_load < 1.5
        if outside(read) < outside(before) + 0.4:
            return True
    return False


def test_another_process_counts_as_outside() -> None:
    watch = MachineWatch(CPU)
    with running(BURN):
        read = seen(watch)
    assert outside(read) > 0.5
    assert read.own_load is not None and read.own_load < 0.2


def test_own_work_does_not_count_as_outside() -> None:
    watch = MachineWatch(CPU)
    assert is_quiet(watch, lambda: seen(watch, lambda: burn(0.3)))


def test_workers_count_as_own_once_they_are_found() -> None:
    watch = MachineWatch(CPU)

    def with_worker() -> MachineState:
        with running(BURN):
            watch.find_workers()
            return seen(watch)

    assert is_quiet(watch, with_worker)


def test_a_worker_that_ends_during_a_block_keeps_its_share() -> None:
    watch = MachineWatch(CPU)

    def end(worker: subprocess.Popen[bytes]) -> None:
        time.sleep(0.3)
        worker.kill()
        worker.wait()

    def with_dying_worker() -> MachineState:
        with running(BURN) as worker:
            watch.find_workers()
            return seen(watch, lambda: end(worker))

    assert is_quiet(watch, with_dying_worker)
    assert seen(watch, lambda: time.sleep(0.1)).own_load == pytest.approx(0.0, abs=0.3)


Cpu = collections.namedtuple("Cpu", ["user", "idle", "iowait"])


def simulate(monkeypatch: pytest.MonkeyPatch, *, busy: list[float], allowed: set[int]) -> MachineWatch:
    """A watch on a machine whose CPUs are `busy` with other work for these shares of the time."""

    def cpu_times(percpu: bool = False) -> Any:
        now = time.perf_counter()
        cpus = [Cpu(share * now, 1000 + (1 - share) * now * 0.75, (1 - share) * now * 0.25) for share in busy]
        return cpus if percpu else Cpu(*(sum(times) for times in zip(*cpus, strict=True)))

    monkeypatch.setattr("autotune.trial.machine_watch.psutil.cpu_times", cpu_times)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed, raising=False)
    return MachineWatch(CPU)


@pytest.mark.parametrize(
    ("allowed", "load"), [({0, 1, 2, 3}, 2.25), ({1, 3}, 1.25), ({0}, 1.0), ({0, 8}, None), ({0, 1, 2, 3, 4}, None)]
)
def test_only_cpus_that_this_process_may_use_count(
    allowed: set[int], load: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown where the counters do not tell which CPU is which."""
    watch = simulate(monkeypatch, busy=[1.0, 0.25, 0.0, 1.0], allowed=allowed)
    read = seen(watch, lambda: time.sleep(0.05))
    assert read.outside_load == (load if load is None else pytest.approx(load, abs=0.1))


def test_own_work_is_taken_off_the_load_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    read = seen(simulate(monkeypatch, busy=[1.0, 1.0], allowed={0, 1}), lambda: burn(0.1))
    assert read.own_load is not None and read.own_load > 0.1
    assert outside(read) == pytest.approx(2.0 - read.own_load, abs=0.05)


def _forbidden(percpu: bool = False) -> Any:
    raise PermissionError("/proc/stat")


def _nought(percpu: bool = False) -> Any:
    return [Cpu(0.0, 0.0, 0.0)] * (os.cpu_count() or 1) if percpu else Cpu(0.0, 0.0, 0.0)


@pytest.mark.parametrize("counters", [_forbidden, _nought])
def test_the_load_outside_is_unknown_where_nobody_counts_it(
    counters: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autotune.trial.machine_watch.psutil.cpu_times", counters)
    read = seen(MachineWatch(CPU), lambda: burn(0.05))
    assert read.outside_load is None
    assert read.own_load is not None and read.own_load > 0


def test_memory_is_read_and_the_device_is_left_alone_on_a_cpu() -> None:
    read = MachineWatch(CPU).read()
    assert 0 < read.available_memory_bytes <= psutil.virtual_memory().total
    assert read.resident_bytes > 10 * 2**20
    assert (read.device_allocated_bytes, read.allocator_retries, read.sm_clock_mhz, read.energy_j) == (None,) * 4
    assert read.throttle_reasons == ()


def test_costs_next_to_nothing_beside_a_block() -> None:
    watch = MachineWatch(CPU)
    watch.find_workers()
    rounds = 50
    before = time.process_time()
    for _ in range(rounds):
        watch.start()
        watch.read()
    assert (time.process_time() - before) / rounds < 0.002
