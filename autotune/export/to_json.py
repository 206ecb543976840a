"""`json`: the same as `yaml`, for what reads no YAML."""

from __future__ import annotations

import json

from autotune.config import KNOB_NAMES
from autotune.export.notes import settings, worth
from autotune.export.target import Source, Target


def _render(source: Source) -> dict[str, str]:
    values = {**settings(source.config), "effective_batch_size": source.config.effective_batch_size}
    return {"autotune.json": json.dumps({"config": values, "measured": worth(source.emitted)}, indent=2) + "\n"}


TARGET = Target(name="json", render=_render, expresses=frozenset({*KNOB_NAMES, "custom"}))
