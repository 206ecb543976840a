"""`report.html`: one file that explains a study and needs no network."""

from __future__ import annotations

from pathlib import Path

from autotune.report.html.answer import answer
from autotune.report.html.charts import batch, knobs, why
from autotune.report.html.circumstances import circumstances
from autotune.report.html.comparison import comparison_page
from autotune.report.html.course import course
from autotune.report.html.page import page
from autotune.report.html.stability import stability
from autotune.report.reading import Reading
from autotune.store import speaking_of, write_atomically

__all__ = ["comparison_page", "report_page", "write_page"]

_SECTIONS = {
    "answer": ("Answer", answer),
    "why": ("Why", why),
    "knobs": ("Knobs", knobs),
    "batch": ("Batch size", batch),
    "stability": ("Stability", stability),
    "search": ("Search", course),
    "circumstances": ("Circumstances", circumstances),
}
"""Sections in order: id → name in the table of contents, and the function that writes it."""


def report_page(reading: Reading) -> str:
    """The whole report of one study."""
    contents = [(identity, name) for identity, (name, _) in _SECTIONS.items()]
    return page(reading.name, about(reading), [write(reading) for _, write in _SECTIONS.values()], contents)


def write_page(path: Path, content: str) -> None:
    """Write the page. Raises EnvironmentFailure if that fails."""
    with speaking_of(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def about(reading: Reading) -> str:
    """One line: what was tuned, where and when."""
    environment = reading.document["environment"]
    model = reading.spec.model.timm or reading.spec.model.factory or "a model"
    torch = f"PyTorch {environment['torch']}" if environment.get("torch") else ""
    day = str(reading.document["created"])[:10]
    return " · ".join(part for part in (str(model), str(environment["device"]), torch, day) if part)
