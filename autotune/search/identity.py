"""What must stay the same for a study to go on: the spec but its budget, the space, the machine."""

from __future__ import annotations

from typing import Any

from autotune.records import Facts
from autotune.search.space import Space

_MAY_CHANGE = ("budget", "name", "ablation")
"""A larger budget is how a study goes on; the name is the folder's; a search does not look at the ablation."""
_SINCE: dict[str, dict[str, Any]] = {"execution": {"ranks_per_trial": 1}, "model": {"sync_batch_norm": False}}


def study_identity(spec: dict[str, Any], space: Space, facts: Facts) -> dict[str, Any]:
    """Plain JSON, to be kept with the study and compared at the next session."""
    versions = facts.host.versions
    return {
        "spec": {key: _stated(key, value) for key, value in spec.items() if key not in _MAY_CHANGE},
        "space": space.to_dict(),
        "machine": {"device": facts.device.name, "cpu": facts.host.cpu, "torch": versions.get("torch")},
    }


def _stated(section: str, value: Any) -> Any:
    """Without what older studies did not know of, where it is as it was for them."""
    default = _SINCE.get(section, {})
    if not default or not isinstance(value, dict):
        return value
    return {key: each for key, each in value.items() if key not in default or default[key] != each}


def differences(before: Any, now: Any, path: str = "") -> list[str]:
    """One line for each leaf in which two documents differ. A file whose content is named may lie elsewhere."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*before, *(key for key in now if key not in before)]
        if before.get("sha256") and before["sha256"] == now.get("sha256"):
            keys = [key for key in keys if key != "path"]
        return [
            line
            for key in keys
            for line in differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if before == now else [f"{_shown(path)}: was {_shown(before)}, is {_shown(now)}"]


def _shown(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if text.isprintable() else ascii(text)
