"""`json`: the same as `yaml`, for what reads no YAML."""

from __future__ import annotations

import json

from autotune.config import KNOB_NAMES
from autotune.export.notes import header, settings, worth
from autotune.export.target import Source, Target


def _render(source: Source) -> dict[str, str]:
    values = {**settings(source.config), "effective_batch_size": source.config.effective_batch_size}
    document = {"config": values, "measured": worth(source.emitted), "about": header(source)}
    return {"autotune.json": json.dumps(document, indent=2) + "\n"}


TARGET = Target(name="json", render=_render, expresses=frozenset({*KNOB_NAMES, "custom"}))
