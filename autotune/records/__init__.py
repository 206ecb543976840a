"""What crosses a process boundary or a file: requests, results, facts, progress; plain JSON on the wire."""

from __future__ import annotations

from autotune.records.base import Record
from autotune.records.facts import DeviceFacts, Facts, HostFacts, WorkloadFacts
from autotune.records.study import (
    Check,
    ExportVerification,
    Measurement,
    Phase,
    Progress,
    Running,
    SearchResult,
    Standing,
    Verification,
)
from autotune.records.table import BlockRow, RecordedRun, Table
from autotune.records.trial import (
    Block,
    Disturbance,
    Failure,
    FirstGradient,
    LargestActivation,
    MachineState,
    Memory,
    OptimizerSteps,
    Predicted,
    Purpose,
    StepPhase,
    TrialEvent,
    TrialRecord,
    TrialRequest,
    TrialResult,
    TrialStatus,
    WarmUp,
)

__all__ = [
    "Block",
    "BlockRow",
    "Check",
    "DeviceFacts",
    "Disturbance",
    "ExportVerification",
    "Facts",
    "Failure",
    "FirstGradient",
    "HostFacts",
    "LargestActivation",
    "MachineState",
    "Measurement",
    "Memory",
    "OptimizerSteps",
    "Phase",
    "Predicted",
    "Progress",
    "Purpose",
    "Record",
    "RecordedRun",
    "Running",
    "SearchResult",
    "Standing",
    "StepPhase",
    "Table",
    "TrialEvent",
    "TrialRecord",
    "TrialRequest",
    "TrialResult",
    "TrialStatus",
    "Verification",
    "WarmUp",
    "WorkloadFacts",
]
