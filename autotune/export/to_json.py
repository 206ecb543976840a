"""`json`: the same as `yaml`, for programs that do not read YAML."""

from __future__ import annotations

from autotune.export.document import ALL_KNOBS, document, every_custom
from autotune.export.quoting import json_text
from autotune.export.target import Source, Target


def _render(source: Source) -> dict[str, str]:
    return {"autotune.json": json_text(document(source))}


TARGET = Target(name="json", gives="every setting by name", render=_render, expresses=ALL_KNOBS, customs=every_custom)
