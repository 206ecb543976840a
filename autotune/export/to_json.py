"""`json`: the same as `yaml`, for what reads no YAML."""

from __future__ import annotations

import json

from autotune.export.document import ALL_KNOBS, document, every_custom
from autotune.export.target import Source, Target


def _render(source: Source) -> dict[str, str]:
    return {"autotune.json": json.dumps(document(source), indent=2, ensure_ascii=False) + "\n"}


TARGET = Target(name="json", render=_render, expresses=ALL_KNOBS, customs=every_custom)
