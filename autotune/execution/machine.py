"""Looks at this machine without a workload, in a separate process, so that the controller does not import torch."""

from __future__ import annotations

import json
import subprocess

from autotune.errors import EnvironmentFailure
from autotune.interpreter import environment, trial_command
from autotune.records import DeviceFacts, HostFacts

_LIMIT_S = 120.0


def look_at_machine(device: str) -> tuple[DeviceFacts, HostFacts]:
    """What `device` and its host offer. Raises EnvironmentFailure when PyTorch does not start or has no such device."""
    command = trial_command("machine", device)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False, env=environment())
    except subprocess.TimeoutExpired as error:
        raise EnvironmentFailure(f"PyTorch did not start within {_LIMIT_S:.0f} s") from error
    if done.returncode:
        raise EnvironmentFailure(
            done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "PyTorch does not start"
        )
    found = json.loads(done.stdout.splitlines()[-1])
    return DeviceFacts.model_validate(found["device"]), HostFacts.model_validate(found["host"])
