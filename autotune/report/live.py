"""The live screen: what a running study does and why, its state, and the time left.

Everything goes to stderr through rich, which handles NO_COLOR and detects terminals. Without a terminal, the live view
becomes one line for each trial.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autotune.records import Progress, Purpose, Running, Standing
from autotune.report import words
from autotune.spec.durations import format_duration

_REFRESH_PER_S = 2.0
"""Low, because drawing takes CPU time from the trial that is being measured."""
_BAR_WIDTH = 30
_NAME_WIDTH = 16
_SPARK_WIDTH = 40
_MOST_RUNNING = 4
"""Trials that are shown individually; a screen has few lines."""
_STARTING = "starting PyTorch and looking at the workload …"
_DOES = {
    Purpose.BASELINE: "measuring {}, to compare everything else with",
    Purpose.SEED: "trying a first guess: {}",
    Purpose.SEARCH: "probing {}",
    Purpose.REPEAT: "measuring {} again, to see how much two runs differ",
    Purpose.CONFIRM: "confirming {}, in rounds with the baseline",
    Purpose.REFERENCE: "training in fp32 as the reference of the stability tests: {}",
    Purpose.PROBE: "training with extra checks, for the stability tests: {}",
    Purpose.SOAK: "long stability run (soak) of {}",
    Purpose.SIDE: "measuring one side of {} alone",
    Purpose.VERIFY: "measuring {} again",
    Purpose.ABLATE: "measuring {} for the ablation",
}


class Screen:
    """Shows the snapshots of a running study; a context manager for the whole study."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._latest: tuple[Progress, float] | None = None
        self._live: Live | None = None
        if not quiet and console.is_terminal:
            self._live = Live(
                get_renderable=self._view, console=console, refresh_per_second=_REFRESH_PER_S, transient=True
            )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.__enter__()
        elif not self._quiet:
            self._console.print(_STARTING)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def __call__(self, progress: Progress) -> None:
        self._latest = (progress, time.monotonic())
        if self._live is None and progress.message and not self._quiet:
            self._console.print(_plain_line(progress), highlight=False, markup=False, emoji=False, soft_wrap=True)

    def _view(self) -> RenderableType:
        """The latest snapshot with a running clock, which distinguishes a long compilation from a frozen screen."""
        if self._latest is None:
            return Text(_STARTING)
        progress, seen_s = self._latest
        return progress_view(progress, age_s=time.monotonic() - seen_s)


def progress_view(progress: Progress, *, age_s: float = 0.0) -> RenderableType:
    """The whole live view of one snapshot, `age_s` seconds after it was taken."""
    elapsed_s = progress.elapsed_s + age_s
    left = max(progress.budget_s - elapsed_s, 0.0)
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        Text(f"{progress.study[:_NAME_WIDTH]}: {progress.phase}", style="bold", no_wrap=True),
        ProgressBar(total=progress.budget_s, completed=min(elapsed_s, progress.budget_s), width=_BAR_WIDTH),
        Text(f"{format_duration(round(left))} of {format_duration(round(progress.budget_s))} left"),
    )
    return Group(bar, *_doing(progress, elapsed_s), *_standing_so_far(progress), _leaders_table(progress))


def _plain_line(progress: Progress) -> str:
    best = progress.leaders[0] if progress.leaders else None
    ratio = f"  best {words.rate(best.samples_per_s)}/s" if best else ""
    if best and progress.baseline:
        ratio += f", {best.samples_per_s / progress.baseline.samples_per_s:.2f}x the baseline"
    return f"{progress.elapsed_s:6.1f} s  {progress.phase}  {progress.message}{ratio}"


def _doing(progress: Progress, elapsed_s: float) -> list[RenderableType]:
    """What runs now and why, each with its speed so far."""
    if not progress.running:
        return [Text(progress.message or "choosing the next configuration", style="dim")]
    lines: list[RenderableType] = []
    for running in progress.running[:_MOST_RUNNING]:
        seconds = max(elapsed_s - running.since_s, 0.0)
        lines += [Text(_why(running, progress.baseline)), Text(f"  {_speed(running)}, {seconds:.0f} s", style="cyan")]
    others = len(progress.running) - _MOST_RUNNING
    return [*lines, Text(f"and {others} more at the same time", style="dim")] if others > 0 else lines


def _why(running: Running, baseline: Standing | None) -> str:
    """`probing amp_dtype bf16, micro_batch_size 256: predicted 1,390/s (1,290 to 1,500)`."""
    what = words.changes(running.config, baseline.config if baseline else running.config)
    does = _DOES[running.purpose].format(what)
    if running.round is not None:
        does += f", round {running.round}"
    expected = running.predicted
    if expected is not None:
        between = f"{words.rate(expected.low)} to {words.rate(expected.high)}"
        does += f": predicted {words.rate(expected.samples_per_s)}/s ({between})"
    return does


def _speed(running: Running) -> str:
    if running.samples_per_s is None:
        return "warming up"
    ends = running.samples_per_s_ci95
    within = f" ({words.rate(ends[0])} to {words.rate(ends[1])})" if ends else ""
    return f"{words.rate(running.samples_per_s)} samples/s{within}"


def _standing_so_far(progress: Progress) -> list[RenderableType]:
    """The best compared with the baseline, its history, and how the trials ended."""
    counts = Text(", ".join(f"{count} {status}" for status, count in progress.by_status.items()), style="dim")
    if progress.baseline is None or not progress.best_so_far:
        return [counts]
    baseline = progress.baseline.samples_per_s
    grid = Table.grid(padding=(0, 1))
    best = Text(f"best {progress.best_so_far[-1] / baseline:.2f}× the baseline", style="bold")
    grid.add_row(best, Sparkline([value / baseline for value in progress.best_so_far]), counts)
    return [grid]


class Sparkline:
    """Ratios over the baseline as one line of blocks: the lowest block is the baseline, the latest is at the right."""

    def __init__(self, ratios: Sequence[float]) -> None:
        self._ratios = ratios

    def __rich_measure__(self, _console: Console, _options: ConsoleOptions) -> Measurement:
        width = min(len(self._ratios), _SPARK_WIDTH)
        return Measurement(width, width)

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        levels = "_.-=#" if options.ascii_only else "▁▂▃▄▅▆▇█"
        shown = _thinned(self._ratios, _SPARK_WIDTH)
        top = max(*shown, 1.0 + 1e-9) - 1.0
        steps = [round(max(ratio - 1.0, 0.0) / top * (len(levels) - 1)) for ratio in shown]
        yield Text("".join(levels[step] for step in steps), style="green", no_wrap=True)


def _thinned(values: Sequence[float], most: int) -> list[float]:
    """At most `most` values, evenly spread; the last is always included."""
    if len(values) <= most:
        return list(values)
    return [values[round((place + 1) * len(values) / most) - 1] for place in range(most)]


def _leaders_table(progress: Progress) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("samples/s", "speed-up", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("sets", overflow="fold")
    if progress.baseline is None:
        return table
    for leader in progress.leaders:
        table.add_row(*_row(leader, progress.baseline))
    if progress.baseline.config not in [leader.config for leader in progress.leaders]:
        table.add_row(*_row(progress.baseline, progress.baseline), style="dim")
    return table


def _row(standing: Standing, baseline: Standing) -> tuple[str, ...]:
    return (
        words.rate(standing.samples_per_s),
        f"{standing.samples_per_s / baseline.samples_per_s:.2f}×",
        words.memory(standing.peak_memory_bytes),
        words.changes(standing.config, baseline.config),
    )
