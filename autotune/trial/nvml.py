"""What NVIDIA's management library says about one GPU: clock, power, temperature, throttling, other processes, energy.

Every value is optional and None if it cannot be read: there is no library or no driver, a MIG slice is not found by its
id, a card does not support a query, or a container forbids it. Nothing raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_REASONS = {
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
"""Bits of nvml.h's `nvmlClocksEventReason…`, formerly `nvmlClocksThrottleReason…`."""


@dataclass(frozen=True, kw_only=True)
class GpuReading:
    """The sensors at one moment."""

    sm_clock_mhz: int | None = None
    power_w: float | None = None
    """The mean of the last second on Ampere and later, of the moment on older cards."""
    temperature_c: int | None = None
    throttle_reasons: tuple[str, ...] = ()
    other_processes: int | None = None
    energy_j: float | None = None
    """Energy of the whole device since its driver was loaded."""


class GpuSensors:
    """The GPU with `uuid`, as torch states it, without NVML's prefix. A GPU that is not found reads as all None."""

    def __init__(self, uuid: str | None, nvml: Any = None) -> None:
        """`nvml`: stands in for the module pynvml, which is loaded only here."""
        self._nvml = nvml or _pynvml()
        self._handle = None
        if self._nvml is not None and uuid is not None:
            self._handle = self._find(uuid)

    def read(self) -> GpuReading:
        """Read all sensors, first those that change soonest when the device becomes idle."""
        nvml = self._nvml
        if self._handle is None:
            return GpuReading()
        reasons = self._ask("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
        clock = self._ask("nvmlDeviceGetClockInfo", of=(nvml.NVML_CLOCK_SM,))
        energy_j = self.energy_j()
        power_mw = self._ask("nvmlDeviceGetPowerUsage")
        return GpuReading(
            sm_clock_mhz=clock,
            power_w=None if power_mw is None else power_mw / 1000,
            temperature_c=self._ask(
                "nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV", of=(nvml.NVML_TEMPERATURE_GPU,)
            ),
            throttle_reasons=tuple(name for bit, name in _REASONS.items() if (reasons or 0) & bit),
            other_processes=self._other_processes(),
            energy_j=energy_j,
        )

    def energy_j(self) -> float | None:
        """The energy counter alone: what the start of a block needs. It moves every 20 to 100 ms."""
        energy_mj = None if self._handle is None else self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if energy_mj is None else energy_mj / 1000

    def _find(self, uuid: str) -> Any:
        try:
            self._nvml.nvmlInit()
            return self._nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except self._nvml.NVMLError:
            return None

    def _ask(self, *queries: str, of: tuple[Any, ...] = ()) -> Any:
        """The answer to the first of `queries` that works; they are names of one query in several versions."""
        for query in queries:
            try:
                return getattr(self._nvml, query)(self._handle, *of)
            except (self._nvml.NVMLError, AttributeError):  # the driver lacks the query, or pynvml does
                continue
        return None

    def _other_processes(self) -> int | None:
        """How many other processes compute on the device: one fewer than are listed, because this process is listed
        too.

        This process cannot be recognised by its id: inside a container the driver gives the ids of the host. An empty
        list hides this process, and perhaps others.
        """
        processes = self._ask("nvmlDeviceGetComputeRunningProcesses")
        return len({process.pid for process in processes}) - 1 if processes else None


def _pynvml() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml
