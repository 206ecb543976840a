"""Facts about the machine and the workload, found in a process that may touch the device."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
from pathlib import Path

import psutil
import torch

import autotune
from autotune.errors import EnvironmentFailure
from autotune.host import cpu_name, cpuinfo, usable_cores
from autotune.records import DeviceFacts, Facts, HostFacts
from autotune.training import device_name
from autotune.trial.host_memory import usable_bytes
from autotune.workload import Prepared, workload_facts

_FIRST_WITH_TRITON = (7, 0)
_SHM = Path("/dev/shm")
_NATIVE_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"})


def gather_facts(prepared: Prepared, device: torch.device) -> Facts:
    """Everything that the search must know before its first trial. Builds the model once.

    Raises EnvironmentFailure where there are fewer devices than ranks.
    """
    ranks = prepared.spec.execution.ranks_per_trial
    _require_devices(device, ranks)
    host = host_facts(device)
    share = {
        "usable_cores": max(host.usable_cores // ranks, 1),
        "default_num_threads": max(host.default_num_threads // ranks, 1),
    }
    return Facts(
        device=device_facts(device), host=host.model_copy(update=share), workload=workload_facts(prepared, device)
    )


def _require_devices(device: torch.device, ranks: int) -> None:
    if device.type == "cpu" or ranks == 1:
        return
    found = torch.accelerator.device_count() - (device.index or 0)
    if found < ranks or device.type == "mps":
        raise EnvironmentFailure(
            f"execution.ranks_per_trial: {ranks} ranks need a device each, and there are {found} from {device} on; "
            "give fewer ranks"
        )


def device_facts(device: torch.device) -> DeviceFacts:
    capability: tuple[int, int] | None = None
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        capability = torch.cuda.get_device_capability(device)
        dtypes: tuple[str, ...] = (
            ("bf16", "fp16") if torch.cuda.is_bf16_supported(including_emulation=False) else ("fp16",)
        )
    elif device.type == "xpu":
        memory = torch.xpu.get_device_properties(device).total_memory
        dtypes = ("bf16", "fp16")
    elif device.type == "mps":
        memory, dtypes = torch.mps.recommended_max_memory(), ("fp16",)
    else:
        memory = usable_bytes()
        dtypes = ("bf16",) if _cpu_flags() & _NATIVE_BF16_FLAGS else ()
    return DeviceFacts(
        kind=device.type,
        index=device.index,
        name=device_name(device),
        total_memory_bytes=memory,
        compute_capability=capability,
        amp_dtypes=dtypes,
        compile_refusal=_compile_refusal(device, capability),
    )


def host_facts(device: torch.device) -> HostFacts:
    versions = {"autotune": autotune.__version__, "python": platform.python_version(), "torch": torch.__version__}
    timm = importlib.util.find_spec("timm")
    if timm is not None:
        versions["timm"] = importlib.metadata.version("timm")
    if device.type == "cuda":
        versions["cuda"] = torch.version.cuda or "unknown"
        versions["driver"] = _driver_version()
        versions["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
    return HostFacts(
        cpu=cpu_name(),
        physical_cores=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        usable_cores=usable_cores(),
        default_num_threads=torch.get_num_threads(),
        memory_bytes=usable_bytes(),
        shm_bytes=shutil.disk_usage(_SHM).total if _SHM.exists() else None,
        versions=versions,
    )


def _compile_refusal(device: torch.device, capability: tuple[int, int] | None) -> str | None:
    if device.type == "mps":
        return "torch.compile is experimental on MPS"
    if device.type == "cpu":
        compilers = [os.environ.get("CXX", ""), "g++", "clang++"]
        return None if any(shutil.which(name) for name in compilers if name) else "no C++ compiler (g++ or clang++)"
    if capability is not None and capability < _FIRST_WITH_TRITON:
        return "Triton needs compute capability 7.0"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    return None if any(shutil.which(name) for name in ("cc", "gcc", "clang")) else "Triton needs a C compiler"


def _driver_version() -> str:
    """Version of NVIDIA's kernel module, from its own text: `NVRM version: … Kernel Module  570.86.15  …`."""
    path = Path("/proc/driver/nvidia/version")
    found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", path.read_text()) if path.exists() else None
    return found.group() if found else "unknown"


def _cpu_flags() -> frozenset[str]:
    return frozenset((cpuinfo("flags") or cpuinfo("Features") or "").split())
