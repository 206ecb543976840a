"""The result of a study, read from its `best.yaml`: the configuration and its measurements.

Imports little, because training code uses it: YAML, and pydantic when a file is read.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from autotune.config import KnobValue, TrainConfig
from autotune.errors import SpecError

if TYPE_CHECKING:
    from autotune.best_yaml import Rate

FILE_NAME = "best.yaml"
FORMAT = 1
STUDIES = Path("studies")
"""The folder of studies for which no folder is given."""
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The results of confirming runs of one configuration."""

    config: TrainConfig
    samples_per_s: float
    samples_per_s_ci95: Interval | None
    """None if there were too few runs."""


@dataclass(frozen=True, kw_only=True)
class Emitted:
    """A study's result."""

    study: str
    best: Measured
    baseline: Measured
    speedup: float
    """Throughput of the best, divided by the baseline's."""
    speedup_ci95: Interval | None
    verdict: str
    """`stable`: no instability was seen in the steps that were run; `unconfirmed`: the budget ended before that."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """Device, processor and versions with which it was measured."""
    path: Path | None = None
    """The file it was read from."""

    @property
    def config(self) -> TrainConfig:
        return self.best.config

    @property
    def batch_change(self) -> str | None:
        return batch_change(self.config, self.baseline.config)

    @property
    def worth(self) -> str:
        """Throughput, speed-up and verdict in one line."""
        interval = "" if self.speedup_ci95 is None else f" ({self.speedup_ci95[0]:.2f} to {self.speedup_ci95[1]:.2f})"
        rate = f"{self.best.samples_per_s:,.0f} samples/s"
        return f"{rate}, {self.speedup:.2f}× the baseline{interval}, {self.verdict}"

    def as_html(self) -> str:
        """A table of the settings, for notebooks."""
        before = settings_of(self.baseline.config)
        rows = [_row(name, before.get(name), value) for name, value in settings_of(self.config).items()]
        title = f"<p><b>{html.escape(self.study)}</b>: {html.escape(self.worth)}</p>"
        change = f"<p>{html.escape(self.batch_change)}</p>" if self.batch_change else ""
        return f"{title}{change}<table><tr><th>setting</th><th>baseline</th><th>tuned</th></tr>{''.join(rows)}</table>"

    @classmethod
    def from_document(cls, document: Mapping[str, Any], path: Path | None = None) -> Self:
        """The result in `document`. Raises SpecError, in one line, for another format, or for a value that no result
        has."""
        from autotune.best_yaml import Essence
        from autotune.untrusted import check

        if document.get("format") != FORMAT:
            found = repr(document.get("format"))[:20]
            raise SpecError(f"{path or FILE_NAME}: format {found}; this version reads format {FORMAT}")
        try:
            checked = check(Essence, document)
        except ValueError as error:
            raise SpecError(f"{path or FILE_NAME} is damaged: {error}") from None
        return cls(
            study=checked.study,
            best=_measured(checked.measured, document["config"]),
            baseline=_measured(checked.baseline, document["baseline"]["config"]),
            speedup=checked.speedup.ratio,
            speedup_ci95=_interval(checked.speedup.ci95),
            verdict=checked.stability.verdict,
            environment=document["environment"],
            path=path,
        )


def settings_of(config: TrainConfig) -> dict[str, KnobValue]:
    """Built-in knobs and custom ones alike."""
    return {name: value for name, value in config.to_dict().items() if name != "custom"} | dict(config.custom)


def batch_change(config: TrainConfig, baseline: TrainConfig) -> str | None:
    """What a changed effective batch size means for training, in two sentences; None if it is the baseline's."""
    ours, theirs = config.effective_batch_size, baseline.effective_batch_size
    if ours == theirs:
        return None
    factor = ours / theirs
    return (
        f"The effective batch size changes from {theirs} to {ours}, which changes the training itself. The usual rules "
        f"multiply the learning rate by {factor:g} (SGD, linear) or {factor**0.5:.2g} (Adam, square root)."
    )


def read_emitted(path_or_study: str | Path) -> Emitted:
    """The result in a file such as `best.yaml`, in a study's folder, or of a study under `studies/` given by its name.

    Raises SpecError if there is none, or if it cannot be read.
    """
    from autotune.untrusted import read_yaml

    path = _find(Path(path_or_study).expanduser())
    try:
        document = read_yaml(path)
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} cannot be read: {error}") from error
    return Emitted.from_document(document, path)


def _row(name: str, before: KnobValue, now: KnobValue) -> str:
    """A row of the table for notebooks; what differs from the baseline is bold."""
    new = html.escape(shown(now))
    cells = [html.escape(name), html.escape(shown(before)), f"<b>{new}</b>" if now != before else new]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def shown(value: KnobValue) -> str:
    """A setting in YAML."""
    return "–" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _find(path: Path) -> Path:
    for candidate in (path, path / FILE_NAME, STUDIES / path / FILE_NAME):
        if candidate.is_file():
            return candidate
    known = sorted(filter(str.isprintable, (found.parent.name for found in STUDIES.glob(f"*/{FILE_NAME}"))))
    hint = f"results here: {', '.join(known)}" if known else "run `autotune search SPEC` first"
    raise SpecError(f"no result at {path}; {hint}")


def _measured(rate: Rate, config: Mapping[str, Any]) -> Measured:
    return Measured(
        config=TrainConfig.from_dict(config),
        samples_per_s=rate.samples_per_s,
        samples_per_s_ci95=_interval(rate.samples_per_s_ci95),
    )


def _interval(ends: list[float] | None) -> Interval | None:
    return (ends[0], ends[1]) if ends else None
