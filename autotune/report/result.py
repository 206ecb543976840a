"""The end of a search on one screen: how much faster, what to change, what limits now, what it costs, how to use it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autotune.config import TrainConfig
from autotune.emitted import batch_change
from autotune.export import TARGETS
from autotune.report import words
from autotune.report.cleaning import clean, one_line
from autotune.report.terminal import listing

_MOST_OF_A_PATH = 4096
_MOST_NOTES = 3
"""`-v` shows all."""


def result_view(
    document: dict[str, Any],
    *,
    folder: Path,
    notes: Sequence[str] | None = None,
    next_steps: Sequence[str] = (),
    verbose: bool = False,
) -> RenderableType:
    """`document`: the content of `best.yaml`. `folder`: the study's folder. `notes`: replace those in the document.
    `verbose`: also show the export formats, what was not searched and why, and what the strategy predicted."""
    study = shlex.quote(one_line(folder.name if folder.parent == Path("studies") else folder, _MOST_OF_A_PATH))
    said = list(document.get("notes", ()) if notes is None else notes)
    why = [Text(clean(said.pop(0)))] if said and _explains_itself(document) else []
    batch = [Text(clean(change))] if (change := _batch_change(document, said)) else []
    shown = said if verbose else said[:_MOST_NOTES]
    more = [f"{len(said) - len(shown)} more: autotune show -v {study}"] if len(shown) < len(said) else []
    parts: list[RenderableType] = [
        _headline(document),
        *why,
        *batch,
        *_settings(document, verbose),
        _labelled([*_figures(document, verbose), *(("note", Text(clean(note))) for note in (*shown, *more))]),
        _labelled(_usage(document, folder, study)),
    ]
    if verbose:
        parts += _details(document)
    if next_steps:
        parts += [Text(""), listing("next", next_steps)]
    return Group(*parts)


def _keeps(document: dict[str, Any]) -> bool:
    return bool(document["config"] == document["baseline"]["config"])


def _explains_itself(document: dict[str, Any]) -> bool:
    """Whether the first note is about the headline."""
    is_faster = document["speedup"].get("outcome", "faster") == "faster"
    return document["stability"]["verdict"] != "stable" or _keeps(document) or not is_faster


def _headline(document: dict[str, Any]) -> Text:
    stable = document["stability"]["verdict"] == "stable"
    ours, theirs = (words.rate(document[part]["samples_per_s"]) for part in ("measured", "baseline"))
    if _keeps(document):
        head = words.KEEP if stable else "keep your current settings for now"
        rate = f"{ours} samples/s."
    else:
        head = f"{document['speedup']['ratio']:.2f}× as fast as your baseline{words.sure(document)}"
        rate = f"{ours} samples/s instead of {theirs}."
    return Text.assemble(
        (f"{document['study']}: {head}\n", "bold green" if stable else "bold yellow"),
        f"{rate} {words.verdict(document)}".rstrip(),
    )


def _batch_change(document: dict[str, Any], notes: list[str]) -> str | None:
    """What a changed effective batch size means: the note about it, removed from `notes`, else only the sentence."""
    change = batch_change(*(TrainConfig.from_dict(c) for c in (document["config"], document["baseline"]["config"])))
    noted = next((note for note in notes if change and note.startswith(change)), None)
    if noted:
        notes.remove(noted)
    return noted or change


def _settings(document: dict[str, Any], verbose: bool) -> Iterator[RenderableType]:
    """What to change and what each change is worth, and one line with what was tried without a gain."""
    config, baseline = (TrainConfig.from_dict(c) for c in (document["config"], document["baseline"]["config"]))
    if config != baseline:
        gains = words.gains(document)
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in ("change", "from", "to", *(["worth"] if gains else [])):
            table.add_column(heading, style={"from": "dim", "to": "bold"}.get(heading, ""))
        for knob, (own, before) in config.differences(baseline).items():
            row = (knob, words.setting(before), words.setting(own), gains.get(knob, ""))
            table.add_row(*(Text(one_line(cell)) for cell in row[: len(table.columns)]))
        yield from (Text(""), table)
    if verbose and (left := words.left_out(document)):
        yield listing("tried, no clear gain", left)
    elif knobs := words.left_alone(document):
        yield Text(f"Tried, no clear gain: {', '.join(map(one_line, knobs))}.", style="dim")


def _labelled(rows: Iterable[tuple[str, Text]]) -> RenderableType:
    """A blank line, then lines with labels; wrapped lines are indented behind their label."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True, min_width=6)
    grid.add_column(overflow="fold")
    for label, line in rows:
        grid.add_row(label, line)
    return Group(Text(""), grid)


def _figures(document: dict[str, Any], verbose: bool) -> Iterator[tuple[str, Text]]:
    """What limits now, what would help next, and what it costs."""
    figures, baseline, effort = document["measured"], document["baseline"], document["search"]
    yield "limit", _line(figures.get("bottleneck", "unknown"))
    if verbose and not _keeps(document):
        yield "before", _line(baseline.get("bottleneck", "unknown"))
    if helps := words.what_helps(document):
        yield "next", _line(helps)
    yield (
        "memory",
        _line(f"{words.memory(figures['peak_memory_bytes'])} at the peak{_times(document, 'peak_memory_bytes')}"),
    )
    if energy := figures.get("energy_j_per_sample"):
        yield "energy", _line(f"{energy:.3g} J per sample{_times(document, 'energy_j_per_sample')}")
    at_once = f", {effort['training_s']:.0f} s of training" if effort["training_s"] > effort["elapsed_s"] else ""
    yield "search", _line(f"{words.runs(effort)} in {words.elapsed(effort)}{at_once if verbose else ''}")


def _line(text: str) -> Text:
    return Text(one_line(text, 400))


def _times(document: dict[str, Any], key: str) -> str:
    """`, 1.15× the baseline's`; empty if that is unknown, or if this is the baseline."""
    before = document["baseline"].get(key)
    return f", {document['measured'][key] / before:.2f}× the baseline's" if before and not _keeps(document) else ""


def _usage(document: dict[str, Any], folder: Path, study: str) -> Iterator[tuple[str, Text]]:
    """How to use the settings, and where to read more."""
    if not _keeps(document):
        yield "use", _command(f'autotune.load("{one_line(folder, _MOST_OF_A_PATH)}")', "in your Python code")
        yield "", _command(f"autotune export {study} --to FORMAT", ", ".join(TARGETS))
    yield "more", _command(f"autotune show -v {study}", "the formats; what was not tried, and why")
    yield "", _command(f"autotune report {study}", "why it is faster: one HTML page")


def _command(command: str, gives: str) -> Text:
    return Text.assemble(command, "  ", (gives, "dim"))


def _details(document: dict[str, Any]) -> Iterator[RenderableType]:
    if not _keeps(document):
        yield from (Text(""), listing("formats", [f"{each.name}: {each.gives}" for each in TARGETS.values()]))
    section = document["search"].get("strategy", {})
    if predictions := words.predictions(section):
        yield Text(f"\n{predictions}.")
    if section.get("gave_up"):
        yield Text(one_line(words.gave_up(section), 400))
    if dropped := document["search"].get("not_searched"):
        yield from (Text(""), listing("not searched", dropped))
