"""`yaml`: every setting by its name, for training code that reads its own configuration."""

from __future__ import annotations

from autotune.export.document import ALL_KNOBS, document, every_custom
from autotune.export.quoting import comment
from autotune.export.target import Source, Target
from autotune.export.text import introduction
from autotune.spec import dump_yaml


def _render(source: Source) -> dict[str, str]:
    return {"autotune.yaml": comment(introduction(source, TARGET)) + dump_yaml(document(source))}


TARGET = Target(name="yaml", gives="every setting by name", render=_render, expresses=ALL_KNOBS, customs=every_custom)
