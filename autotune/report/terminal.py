"""Screen output: the space that would be searched, what a machine offers, verifications, sweeps and replays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autotune.config import TrainConfig
from autotune.records import (
    DeviceFacts,
    ExportVerification,
    Facts,
    HostFacts,
    RecordedRun,
    Verification,
)
from autotune.report import words
from autotune.report.cleaning import clean, one_line
from autotune.spec.durations import format_duration


def sweep_line(run: RecordedRun, done: int, planned: int, remaining_s: float) -> Text:
    """One run of a sweep, and how long the rest will take."""
    outcome = (
        f"{words.rate(run.samples_per_s)} samples/s" if run.samples_per_s else f"{run.status}: {one_line(run.failure)}"
    )
    left = format_duration(round(remaining_s))
    return Text(f"{done}/{planned}  {left} left  {outcome}  {words.changes(run.config, TrainConfig())}", no_wrap=True)


def replay_view(documents: Sequence[dict[str, Any]]) -> RenderableType:
    """Strategies on recorded tables, one row each."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    headings = ["table", "strategy", "within 2 %", "seconds", "90 %", "trials", "found ÷ best", "10 %", "OOM", "score"]
    crewed = any(document["crew"]["workers"] > 1 for document in documents)
    headings += ["ask+tell"] if crewed else []
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < 2 else "right", no_wrap=True)
    for document in documents:
        name = document["table"]
        for strategy, figures in document["strategies"].items():
            seconds, trials = figures["seconds_to_2pct"], figures["trials_to_2pct"]
            found, ooms = figures["found_over_best"], figures["oom_trials"]
            table.add_row(
                name,
                strategy,
                f"{100 * seconds['reached']:.0f} %",
                words.number(seconds["median"]),
                words.number(seconds["p90"]),
                words.number(trials["median"]),
                f"{found['median']:.3f}",
                f"{found['p10']:.3f}",
                f"{ooms['median']:g}" + ("" if crewed else f", at most {ooms['max']}"),
                "–" if figures["score"] is None else f"{figures['score']:.2f}",
                *([f"{100 * figures['controller_share']['median']:.0f} %"] if crewed else []),
            )
            name = ""
    legend = "seconds, trials: until within 2 % of the best (median over the seeds); OOM: trials that ran out of memory"
    if crewed:
        legend += "; ask+tell: share of one core that the strategy uses, with trials as short as the recorded ones"
    return Group(table, Text(legend, style="dim"))


def verification_view(found: Verification) -> RenderableType:
    """Whether a promise holds, the measurements then and now, and what has changed in the environment."""
    head = _kept(found)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("", "speed-up", "95 % interval", "samples/s"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    promised = words.rate(found.promised_samples_per_s)
    table.add_row("promised", f"{found.promised_ratio:.2f}×", words.interval(found.promised_ratio_ci95), promised)
    if found.ratio is not None and found.samples_per_s is not None:
        now = f"now, {found.rounds} rounds"
        table.add_row(now, f"{found.ratio:.2f}×", words.interval(found.ratio_ci95), words.rate(found.samples_per_s))
    title = Text(f"{found.study}: {head}: {found.reason}", style="bold green" if found.holds else "bold yellow")
    changes = [listing("changed since", found.environment_changes)] if found.environment_changes else []
    return Group(title, table, *changes)


def _kept(found: Verification) -> str:
    subject = "the promise" if found.promised else "the unconfirmed result"
    if not found.known:
        return f"it is not clear yet whether {subject} holds"
    return f"{subject} {'holds' if found.holds else 'does not hold'}"


def export_verification_view(found: ExportVerification) -> RenderableType:
    """Whether an exported script keeps the promise, and the measurements."""
    title = Text(f"{found.study}: {found.reason}", style="bold green" if found.holds else "bold yellow")
    lines = [title, Text(f"promised {words.rate(found.promised_samples_per_s)} samples/s by the search")]
    if found.ratio is not None and found.samples_per_s is not None:
        within = words.interval(found.ratio_ci95)
        now = f"now {words.rate(found.samples_per_s)} samples/s, {found.ratio:.3f}× the trials in alternation with it"
        lines.append(Text(f"{now} ({within}, {found.rounds} rounds)"))
    return Group(*lines)


def machine_view(device: DeviceFacts, host: HostFacts) -> RenderableType:
    """What a machine offers to a search."""
    refusal = device.compile_refusal
    lines = (
        f"device      {device.name} ({device.kind}), {words.memory(device.total_memory_bytes)}",
        f"fast AMP    {', '.join(device.amp_dtypes) or 'none'}",
        f"compile     {refusal or 'yes'}",
        f"host        {host.cpu}, {host.usable_cores} usable cores, {words.memory(host.memory_bytes)}",
        f"versions    {', '.join(f'{name} {version}' for name, version in host.versions.items())}",
    )
    return Text("\n".join(lines))


def facts_view(facts: Facts) -> RenderableType:
    """The facts about machine and workload that matter for the search."""
    work = facts.workload
    samples = "a stream of" if work.dataset_samples is None else f"{work.dataset_samples:,}"
    shape = words.samples(work)
    model = f"model       {work.parameters:,} parameters{', BatchNorm' if work.batch_norm else ''}"
    return Group(machine_view(facts.device, facts.host), Text(f"{model}\ndata        {samples} samples of {shape}"))


def space_view(
    rows: Sequence[tuple[str, str, str]], size: str, dropped: Sequence[str], constraints: Sequence[str] = ()
) -> RenderableType:
    """`rows`: knob, values, the baseline's value."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("knob", "values", "baseline"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    parts: list[RenderableType] = [Text(f"{size} configurations"), table]
    listings = {"not searched": dropped, "constraints": constraints}
    return Group(*parts, *(listing(heading, lines) for heading, lines in listings.items() if lines))


def listing(heading: str, lines: Sequence[str]) -> RenderableType:
    """Lines below a heading, also indented after a line break."""
    grid = Table.grid(padding=(0, 1))
    for line in lines:
        grid.add_row(" -", Text(clean(line)))
    return Group(Text(f"{heading}:", style="dim"), grid)
