"""A machine and a workload to plan against, without looking at any."""

from __future__ import annotations

from typing import Any

from autotune.records import DeviceFacts, Facts, HostFacts, WorkloadFacts


def cpu_facts(**workload: Any) -> Facts:
    return Facts(
        device=DeviceFacts(kind="cpu", name="Test CPU", total_memory_bytes=16 << 30, amp_dtypes=("bf16",)),
        host=_host(),
        workload=_workload(**workload),
    )


def cuda_facts(capability: tuple[int, int] = (9, 0), **workload: Any) -> Facts:
    return Facts(
        device=DeviceFacts(
            kind="cuda",
            index=0,
            name="Test GPU",
            total_memory_bytes=80 << 30,
            compute_capability=capability,
            amp_dtypes=("bf16", "fp16"),
        ),
        host=_host(),
        workload=_workload(**workload),
    )


def _host() -> HostFacts:
    return HostFacts(
        cpu="Test CPU",
        physical_cores=4,
        usable_cores=4,
        default_num_threads=4,
        memory_bytes=16 << 30,
        shm_bytes=8 << 30,
        versions={"torch": "2.15.0"},
    )


def _workload(**changes: Any) -> WorkloadFacts:
    values: dict[str, Any] = {
        "parameters": 1000,
        "dataset_samples": 10_000,
        "input_shape": (3, 64, 64),
        "activation_checkpointing_refusal": None,
        "fused_optimizer_refusal": None,
        "batch_norm": True,
        **changes,
    }
    return WorkloadFacts(**values)
