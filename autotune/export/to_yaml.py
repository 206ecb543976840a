"""`yaml`: every setting by its name, for training scripts that read their own configuration."""

from __future__ import annotations

from autotune.config import KNOB_NAMES
from autotune.export.notes import comment, header, notes, settings, worth
from autotune.export.target import Source, Target
from autotune.spec import dump_yaml


def _render(source: Source) -> dict[str, str]:
    values = {**settings(source.config), "effective_batch_size": source.config.effective_batch_size}
    document = dump_yaml({"config": values, "measured": worth(source.emitted)})
    return {"autotune.yaml": comment([*header(source), *notes(source, TARGET)]) + document}


TARGET = Target(name="yaml", render=_render, expresses=frozenset({*KNOB_NAMES, "custom"}))
