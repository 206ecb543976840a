"""What else the machine does: judged from tables, read from a fake NVML, and counted on a machine of which the test
says what computes on it. Only the last test reads the machine that runs this."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from autotune.measure import disturbances
from autotune.records import MachineState
from autotune.trial.machine_watch import MachineWatch
from autotune.trial.nvml import _REASONS, GpuReading, GpuSensors

CPU = torch.device("cpu")


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


Cpu = collections.namedtuple("Cpu", ["user", "idle", "iowait"])
Counters = Callable[[bool], Any]


@dataclass(eq=False)
class Process:
    """What psutil tells about one."""

    children_now: list[Process] = field(default_factory=list)
    cpu_s: float = 0.0
    reaped_s: float = 0.0
    """CPU time of its children that have ended and been waited for."""
    alive: bool = True
    looks: int = 0
    listings: int = 0

    def cpu_times(self) -> tuple[float, ...]:
        self.looks += 1
        if not self.alive:
            raise psutil.NoSuchProcess(4711)
        waited_for_a_disk_s = 10 * self.cpu_s
        shares = (share * seconds for seconds in (self.cpu_s, self.reaped_s) for share in (0.75, 0.25))
        return (*shares, waited_for_a_disk_s)

    def children(self, recursive: bool = False) -> list[Process]:
        self.listings += 1
        grandchildren = (each for child in self.children_now for each in child.children(True))
        return [*self.children_now, *(grandchildren if recursive else ())]

    def memory_info(self) -> Any:
        if not self.alive:
            raise psutil.NoSuchProcess(4711)
        return SimpleNamespace(rss=1 << 20, data=1 << 20)

    def memory_full_info(self) -> Any:
        return SimpleNamespace(uss=1 << 19)


class Machine:
    """A machine of a few CPUs, on a clock of its own; what computes on it is said."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        cpus: int = 2,
        allowed: set[int] | None = None,
        counters: Counters | None = None,
    ) -> None:
        """`counters`: in place of `psutil.cpu_times`."""
        self.own = Process()
        self.looks = 0
        self._now_s = 7000.0
        self._idle_s = [1000.0] * cpus
        times = SimpleNamespace(perf_counter=lambda: self._now_s, process_time=lambda: self.own.cpu_s)
        seen = SimpleNamespace(
            cpu_times=lambda percpu=False: (counters or self._counters)(percpu),
            Process=lambda: self.own,
            Error=psutil.Error,
        )
        system = SimpleNamespace(times=self._own_times, sched_getaffinity=lambda _: allowed or set(range(cpus)))
        for name, fake in {"time": times, "psutil": seen, "os": system}.items():
            monkeypatch.setattr(f"autotune.trial.machine_watch.{name}", fake)

    def run(self, seconds: float, busy: Mapping[Process, float] | None = None, outside: Sequence[float] = ()) -> None:
        """Let time pass in which each process of `busy` keeps so many cores at work, spread over all CPUs, and others
        so much of each CPU as `outside` says."""
        self._now_s += seconds
        for process, cores in (busy or {}).items():
            process.cpu_s += cores * seconds
        cpus = len(self._idle_s)
        for number, other in zip(range(cpus), (*outside, *[0.0] * cpus), strict=False):
            self._idle_s[number] += (1 - other - sum((busy or {}).values()) / cpus) * seconds

    def end(self, process: Process, waited_for_by: Process | None) -> None:
        process.alive = False
        if waited_for_by is not None:
            waited_for_by.reaped_s += process.cpu_s

    def _counters(self, percpu: bool) -> Any:
        self.looks += 1
        cpus = [Cpu(self._now_s, 0.75 * idle_s, 0.25 * idle_s) for idle_s in self._idle_s]
        return cpus if percpu else Cpu(*map(sum, zip(*cpus, strict=True)))

    def _own_times(self) -> Any:
        shares = {"children_user": 0.75 * self.own.reaped_s, "children_system": 0.25 * self.own.reaped_s}
        return SimpleNamespace(user=-1.0, system=-1.0, elapsed=-1.0, **shares)


def loads(read: MachineState) -> Any:
    """Own and outside, to be compared with what was said."""
    return pytest.approx((read.own_load, read.outside_load))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_another_process_counts_as_outside(machine: Machine) -> None:
    watch = MachineWatch(CPU)
    watch.start()
    machine.run(0.5, outside=[1.0, 0.25])
    assert loads(watch.read()) == (0.0, 1.25)


@pytest.mark.parametrize("outside", [[0.0, 0.0], [0.25, 0.5]])
def test_own_work_does_not_count_as_outside(machine: Machine, outside: list[float]) -> None:
    watch = MachineWatch(CPU)
    machine.run(30, {machine.own: 2.0})
    watch.start()
    machine.run(0.5, {machine.own: 1.0}, outside)
    assert loads(watch.read()) == (1.0, sum(outside))


def test_workers_count_as_own_once_they_are_found(machine: Machine) -> None:
    """What they did before is no work of the block."""
    helper = Process()
    worker = Process([helper])
    machine.own.children_now.append(worker)
    watch = MachineWatch(CPU)
    for _ in range(2):
        watch.start()
        machine.run(5, {worker: 0.75, helper: 0.25})
        assert loads(watch.read()) == (0.0, 1.0)
    watch.find_workers()
    machine.run(0.5, {worker: 0.75, helper: 0.25, machine.own: 0.5}, outside=[0.25])
    read = watch.read()
    assert loads(read) == (1.5, 0.25)
    assert read.loader_load == pytest.approx(1.0)


def test_all_that_descends_from_the_root_is_found_and_this_process_counts_once(machine: Machine) -> None:
    loader, other_rank = Process(), Process()
    root = Process([machine.own, other_rank])
    machine.own.children_now.append(loader)
    watch = MachineWatch(CPU, root=root)  # type: ignore[arg-type]
    watch.find_workers()
    machine.run(0.5, {root: 0.125, machine.own: 0.25, other_rank: 0.25, loader: 0.5})
    read = watch.read()
    assert loads(read) == (1.125, 0.0)
    assert read.loader_load is None, "some of them train"


@pytest.mark.parametrize("parent", ["this process", "the root"])
def test_a_worker_that_ends_during_a_block_keeps_its_share(machine: Machine, parent: str) -> None:
    worker, root = Process(), Process([machine.own])
    waits = {"this process": machine.own, "the root": root}[parent]
    waits.children_now.append(worker)
    watch = MachineWatch(CPU, root=root)  # type: ignore[arg-type]
    watch.find_workers()
    machine.run(60, {worker: 1.0})
    watch.start()
    machine.run(0.3, {worker: 1.0})
    machine.end(worker, waited_for_by=waits)
    machine.run(0.2)
    assert loads(watch.read()) == (0.6, 0.0)
    watch.start()
    machine.run(0.5)
    assert loads(watch.read()) == (0.0, 0.0)


def test_a_worker_that_nobody_waited_for_takes_its_share_of_the_block_with_it_and_no_more(machine: Machine) -> None:
    worker = Process()
    machine.own.children_now.append(worker)
    machine.run(60, {worker: 1.0})
    watch = MachineWatch(CPU)
    watch.find_workers()
    machine.run(0.3, {worker: 1.0})
    machine.end(worker, waited_for_by=None)
    machine.run(0.2)
    assert loads(watch.read()) == (0.0, 0.6)


def test_an_edge_of_a_block_takes_one_look_at_each_counter_and_lists_no_processes(machine: Machine) -> None:
    """Listing takes milliseconds; so does a look at each of many processes that have gone."""
    stays, goes = Process(), Process()
    machine.own.children_now += [stays, goes]
    watch = MachineWatch(CPU)
    watch.find_workers()
    machine.run(0.5)
    assert watch.read().loader_bytes == 2 << 19
    machine.end(goes, waited_for_by=machine.own)
    looks, listings = (machine.looks, stays.looks, goes.looks), machine.own.listings
    for _ in range(10):
        watch.start()
        machine.run(0.5)
        assert watch.read().loader_bytes == 1 << 19
    assert (machine.looks, stays.looks, goes.looks) == (looks[0] + 20, looks[1] + 20, looks[2] + 1)
    assert machine.own.listings == listings


@pytest.mark.parametrize(
    ("allowed", "load"), [({0, 1, 2, 3}, 2.25), ({1, 3}, 1.25), ({0}, 1.0), ({0, 8}, None), ({0, 1, 2, 3, 4}, None)]
)
def test_only_cpus_that_this_process_may_use_count(
    allowed: set[int], load: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown where the counters do not tell which CPU is which."""
    machine = Machine(monkeypatch, cpus=4, allowed=allowed)
    watch = MachineWatch(CPU)
    watch.start()
    machine.run(0.5, outside=[1.0, 0.25, 0.0, 1.0])
    assert watch.read().outside_load == (load if load is None else pytest.approx(load))


def _forbidden(_percpu: bool) -> Any:
    raise PermissionError("/proc/stat")


def _nought(percpu: bool) -> Any:
    return [Cpu(0.0, 0.0, 0.0)] * 2 if percpu else Cpu(0.0, 0.0, 0.0)


@pytest.mark.parametrize("counters", [_forbidden, _nought])
def test_the_load_outside_is_unknown_where_nobody_counts_it(
    counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, counters=counters)
    watch = MachineWatch(CPU)
    watch.start()
    machine.run(0.5, {machine.own: 1.5})
    assert loads(watch.read()) == (1.5, None)


def test_this_machine_can_be_read_and_the_device_is_left_alone_on_a_cpu() -> None:
    assert psutil.Process().cpu_times()._fields[:4] == ("user", "system", "children_user", "children_system")
    watch = MachineWatch(CPU)
    watch.find_workers()
    watch.start()
    read = watch.read()
    assert read.own_load is not None and read.own_load >= 0
    assert read.outside_load is None or read.outside_load >= 0
    assert 0 < read.available_memory_bytes <= psutil.virtual_memory().total
    assert read.resident_bytes > 10 * 2**20
    assert (read.device_allocated_bytes, read.allocator_retries, read.sm_clock_mhz, read.energy_j) == (None,) * 4
    assert read.throttle_reasons == ()
