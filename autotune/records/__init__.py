"""What crosses a process boundary or a file: requests, results, facts, progress; plain JSON on the wire."""

from __future__ import annotations

from autotune.records.base import Record
from autotune.records.facts import DeviceFacts, Facts, HostFacts, WorkloadFacts
from autotune.records.study import Check, Measurement, Phase, Progress, Running, SearchResult, Standing
from autotune.records.trial import (
    Block,
    Failure,
    Memory,
    OptimizerSteps,
    Purpose,
    TrialEvent,
    TrialRecord,
    TrialRequest,
    TrialResult,
    TrialStatus,
    WarmUp,
)

__all__ = [
    "Block",
    "Check",
    "DeviceFacts",
    "Facts",
    "Failure",
    "HostFacts",
    "Measurement",
    "Memory",
    "OptimizerSteps",
    "Phase",
    "Progress",
    "Purpose",
    "Record",
    "Running",
    "SearchResult",
    "Standing",
    "TrialEvent",
    "TrialRecord",
    "TrialRequest",
    "TrialResult",
    "TrialStatus",
    "WarmUp",
    "WorkloadFacts",
]
