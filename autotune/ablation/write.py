"""Writes the files of an ablation into its folder, and those of several ablations into the folder around theirs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from autotune.ablation import markdown, plot
from autotune.records import Ablation
from autotune.store import AblationFolder


def write(ablation: Ablation, folder: AblationFolder) -> None:
    """Write results, tables and pictures of one spec. Raises EnvironmentFailure if that fails."""
    folder.write(folder.result, _json(ablation.model_dump(mode="json")))
    folder.write(folder.tables, markdown.document(ablation))
    for kind in plot.KINDS:
        folder.write(folder.picture(kind), plot.draw(ablation, kind))


def write_overview(ablations: Sequence[Ablation], folder: AblationFolder) -> None:
    """Write the tables of several specs."""
    folder.write(folder.result, _json(overview(ablations)))
    folder.write(folder.tables, markdown.overview(ablations))
    for kind in plot.KINDS:
        folder.write(folder.picture(kind), plot.draw_overview(ablations, kind))


def overview(ablations: Sequence[Ablation]) -> dict[str, Any]:
    return {"format": 1, "ablations": [ablation.model_dump(mode="json") for ablation in ablations]}


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, allow_nan=False) + "\n"
