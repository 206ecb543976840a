"""Two studies side by side: two machines, two versions of PyTorch, before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autotune.config import TrainConfig
from autotune.report import words
from autotune.report.cleaning import one_line
from autotune.report.figures import FIGURES
from autotune.report.figures.phases import draw as draw_phases
from autotune.report.figures.throughput import bars
from autotune.report.figures.throughput import draw as draw_throughput
from autotune.report.html.page import page
from autotune.report.html.parts import Markup, code, figure, joined, section, table, tag
from autotune.report.reading import Reading
from autotune.spec.durations import format_duration
from autotune.stats import TIE
from autotune.store import read_resolved_spec

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot

_PAIRED = ("steps", "importances", "batch", "pareto", "history")
"""Figures that are shown side by side; the others make sense only for one study."""
_THROUGHPUT = ("steps", "batch", "pareto", "history")
"""Those of them with a throughput axis."""
_READABLE = 5
_CONTENTS = (("results", "Results"), ("settings", "Settings"), ("differences", "Differences"), ("figures", "Figures"))
_SHORTEST_NAME = 28
Pair = tuple[Reading, Reading]


def comparison_page(one: Reading, other: Reading) -> str:
    """The page that compares two studies, `one` first."""
    pair = one, other
    names = _names(pair)
    sections = [_results(pair, names), _settings(pair, names), _differences(pair, names), _figures(pair, names)]
    return page(f"{names[0]} and {names[1]}", "Two studies compared", sections, _CONTENTS)


def _names(pair: Pair) -> tuple[str, str]:
    """The names of the studies, or of their folders if the names are equal."""
    for names in (
        [reading.name for reading in pair],
        [reading.folder.path.name for reading in pair],
        [str(reading.folder.path) for reading in pair],
    ):
        if names[0] != names[1]:
            return one_line(names[0], 80), one_line(names[1], 80)
    return "first", "second"


def _results(pair: Pair, names: tuple[str, str]) -> Markup:
    columns = [dict(_figures_of(reading)) for reading in pair]
    rows = [(key, columns[0][key], columns[1][key]) for key in columns[0]]
    lead = tag("p", _sentence(pair, names), class_="lead")
    return section("results", "The results", lead, table(["", *names], rows, class_="facts"))


def _sentence(pair: Pair, names: tuple[str, str]) -> Markup:
    first, second = (float(reading.document["measured"]["samples_per_s"]) for reading in pair)
    fast, slow, ratio = (1, 0, second / first) if second >= first else (0, 1, first / second)
    gains = [_speedup(reading) for reading in pair]
    over = f" Over its own baseline, {names[0]} gained {gains[0]}, {names[1]} {gains[1]}."
    if ratio < TIE:
        return joined([tag("strong", "Both train equally fast"), ", within 1 %.", over])
    faster = tag("strong", f"{ratio:.2f}× as fast")
    turns = ", but the two were not measured in alternating runs."
    return joined([f"The best of {names[fast]} trains ", faster, f" as that of {names[slow]}{turns}", over])


def _speedup(reading: Reading) -> str:
    return "nothing" if reading.emitted == reading.baseline else words.speedup(reading.document)


def _figures_of(reading: Reading) -> Iterator[tuple[str, object]]:
    document, environment = reading.document, reading.document["environment"]
    yield "model", one_line(reading.spec.model.timm or reading.spec.model.factory or "")
    yield "device", one_line(environment["device"])
    yield "PyTorch", one_line(environment.get("torch", "unknown"))
    yield "baseline", _throughput(document["baseline"])
    yield "best", _throughput(document["measured"])
    yield "speed-up", _speedup(reading)
    yield "verdict", document["stability"]["verdict"]
    yield "bottleneck", document["measured"].get("bottleneck", "unknown")
    yield "peak memory", words.memory(document["measured"]["peak_memory_bytes"])
    yield "effective batch", str(reading.emitted.effective_batch_size)
    effort = document["search"]
    yield "budget", f"{format_duration(round(effort['budget_s']))}, {words.runs(effort)}"
    yield "written", document["created"]


def _throughput(figures: Mapping[str, Any]) -> str:
    ends = figures["samples_per_s_ci95"]
    within = f" ({words.rate(ends[0])} to {words.rate(ends[1])})" if ends else ""
    return f"{words.rate(figures['samples_per_s'])} samples/s{within}"


def _settings(pair: Pair, names: tuple[str, str]) -> Markup:
    """What each study changes, and which settings differ between them."""
    one, other = (reading.emitted for reading in pair)
    changed = {knob for reading in pair for knob in reading.emitted.differences(reading.baseline)}
    changed |= one.differences(other).keys()
    known = [knob for knob in one.differences(TrainConfig(micro_batch_size=-1)) if knob in changed]
    ordered = [*known, *sorted(changed - set(known))]
    rows = [(code(one_line(knob)), *(_setting(reading, knob) for reading in pair)) for knob in ordered]
    content = table(["knob", *names], rows) if rows else tag("p", "Both keep their baselines, which are the same.")
    return section("settings", "The results", content)


def _setting(reading: Reading, knob: str) -> Markup:
    try:
        own, before = reading.emitted.value(knob), reading.baseline.value(knob)
    except KeyError:
        return tag("small", "does not have this knob")
    if own == before:
        return joined([words.setting(own)])
    return joined([tag("b", one_line(words.setting(own))), tag("small", f" from {one_line(words.setting(before))}")])


def _differences(pair: Pair, names: tuple[str, str]) -> Markup:
    specs = [_leaves(read_resolved_spec(reading.folder)) for reading in pair]
    machines = [_leaves({**reading.document["environment"], "host": _host(reading)}) for reading in pair]
    parts: list[object] = []
    for title, (one, other) in (("In the spec", specs), ("In machine and versions", machines)):
        rows = [
            (code(one_line(path)), one_line(one.get(path, "–")), one_line(other.get(path, "–")))
            for path in {**one, **other}
            if one.get(path) != other.get(path)
        ]
        parts += [tag("h3", title), table(["", *names], rows, class_="differences") if rows else tag("p", "Nothing.")]
    return section("differences", "What else differs", *parts)


def _host(reading: Reading) -> dict[str, Any]:
    return reading.facts.host.model_dump(mode="json", include={"usable_cores", "memory_bytes", "default_num_threads"})


def _leaves(document: Any, path: str = "") -> dict[str, str]:
    if isinstance(document, Mapping):
        found: dict[str, str] = {}
        for key, value in document.items():
            found |= _leaves(value, f"{path}.{key}" if path else str(key))
        return found
    return {path: words.setting(document) if not isinstance(document, list) else ", ".join(map(str, document))}


def _figures(pair: Pair, names: tuple[str, str]) -> Markup:
    shortened = [one_line(name, _SHORTEST_NAME) for name in names]
    drawn = [bar for reading, name in zip(pair, shortened, strict=True) for bar in bars(reading, f"{name}: ")]
    about_phases = "For one sample; the shorter bar is the faster one."
    parts: list[object] = [
        figure("throughput", "Throughput", draw_throughput(drawn), "Whiskers are 95 % intervals, dots single runs."),
        figure("phases", "Where the time goes", draw_phases(drawn), about_phases),
    ]
    for name in _PAIRED:
        parts += [tag("h3", FIGURES[name].title), tag("div", *_sides(pair, names, name), class_="pair")]
    return section("figures", "Side by side", *parts)


def _sides(pair: Pair, names: tuple[str, str], name: str) -> list[Markup]:
    chosen = FIGURES[name]
    plots = [chosen.build(reading) for reading in pair]
    _scale_alike(plots, name)
    return [
        figure(f"{name}-{place}", label, plot, chosen.caption(reading))
        for place, (reading, label, plot) in enumerate(zip(pair, names, plots, strict=True), 1)
    ]


def _scale_alike(plots: Sequence[Plot | None], name: str) -> None:
    """Use the same throughput axis for both, unless the slower study would be too small to read."""
    both = [plot for plot in plots if plot is not None]
    axes = [plot.layout.xaxis if name == "steps" else plot.layout.yaxis for plot in both if name in _THROUGHPUT]
    ends = [axis.range[1] for axis in axes]
    if len(ends) == len(plots) and max(ends) <= _READABLE * min(ends):
        for axis in axes:
            axis.range = [axis.range[0], max(ends)]
