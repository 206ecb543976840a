"""Measurements and configurations as text: one spelling for all places that show them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from autotune.config import KnobValue, TrainConfig
from autotune.records import WorkloadFacts
from autotune.report.cleaning import one_line
from autotune.spec.durations import format_duration

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
KEEP = "keep your current settings: nothing tested was reliably faster"
GAINS = (
    "Worth: how much faster the result is with this setting than without it. It was measured, or, where "
    "it says “expected”, estimated by the model. The values do not add up to the speed-up."
)
"""Explanation of the column."""
_FEWEST_PREDICTIONS = 5
"""With fewer, nothing can be said about the quality of predictions."""
_WORTH_MORE_TRIALS = 0.005
"""Share of the throughput: if more trials would gain less than this on average, the search is complete."""


def soaked(document: Mapping[str, Any]) -> int:
    """Optimizer steps of the soak; 0 if there was none."""
    checks = document["stability"]["checks"]
    found = next((float(check["value"]) for check in checks if check["name"] == "soak"), 0.0)
    return int(found) if math.isfinite(found) else 0


def samples(work: WorkloadFacts) -> str:
    """The shape of one sample of the data set: `3 × 224 × 224`."""
    if work.samples is not None:
        return one_line(work.samples, 300)
    return "unknown shape" if work.input_shape is None else " × ".join(map(str, work.input_shape))


def memory(count: float) -> str:
    """Bytes with a binary unit: 258576384 → `247 MiB`."""
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            break
        count /= 1024
    return f"{count:.3g} {unit}" if count < 999.5 else f"{count:.0f} {unit}"


def rate(samples_per_s: float) -> str:
    """Samples per second with three significant digits or more: 1412.3 → `1,412`, 8.254 → `8.25`."""
    return f"{samples_per_s:,.0f}" if samples_per_s >= 100 else f"{samples_per_s:.3g}"


def number(value: float | None) -> str:
    """The rounded value; a dash if it is missing."""
    return "–" if value is None else f"{value:.0f}"


def runs(effort: Mapping[str, Any]) -> str:
    """How many runs the study had: `12 trials, 9 measurements of one side and 14 runs to repeat, confirm and test`."""
    sides = effort.get("sides", 0)
    others = effort["runs"] - effort["trials"] - sides
    alone = f", {sides} measurement{'s' if sides > 1 else ''} of one side" if sides else ""
    return f"{effort['trials']} trials{alone} and {others} runs to confirm and test"


def elapsed(effort: Mapping[str, Any]) -> str:
    """`1m52s of 2m`."""
    spent, budget = (format_duration(round(effort[key])) for key in ("elapsed_s", "budget_s"))
    return f"{spent} of {budget}"


def left_to_gain(effort: Mapping[str, Any]) -> str:
    """What a longer search would bring, if the strategy can estimate it."""
    gain = effort.get("strategy", {}).get("left_to_gain")
    if gain is None:
        return ""
    if gain < _WORTH_MORE_TRIALS:
        return "a longer search would hardly help"
    return f"a longer search would gain {100 * gain:.1f} % on average"


def what_helps(document: Mapping[str, Any]) -> str:
    """What would give more throughput: a change for the limiting side, and more trials."""
    figures = document["measured"]
    supply, demand = figures.get("supply_per_s"), figures.get("demand_per_s")
    step_limits = supply is not None and demand is not None and figures["bottleneck"].startswith("the step")
    step = "a faster device or a smaller model" if step_limits else ""
    return "; ".join(filter(None, (step, left_to_gain(document["search"]))))


def predictions(section: Mapping[str, Any]) -> str:
    """How well a strategy predicted: `auto predicted 1,390 (1,351 to 1,430) and measured 1,412; its 14 predictions were
    …`. Empty if there are too few predictions."""
    if section.get("predictions", 0) < _FEWEST_PREDICTIONS:
        return ""
    inside = round(section["within_interval"] * section["predictions"])
    good = (
        f"{section['predictions']} predictions were off by {100 * section['median_error']:.1f} % (median); {inside} of "
        "the measured values were inside the predicted 95 % interval"
    )
    if not (own := section.get("emitted")):
        return f"{section['name']}'s {good}"
    expected = own["predicted"]
    within = f"{rate(expected['low'])} to {rate(expected['high'])}"
    measured = rate(own["measured_samples_per_s"])
    return (
        f"{section['name']} predicted {rate(expected['samples_per_s'])} ({within}) and measured {measured}; its {good}"
    )


def gave_up(section: Mapping[str, Any]) -> str:
    """Why the strategy stopped using its model."""
    return f"{section['name']} stopped using its model: {section['gave_up']}. Optuna's GPSampler took over."


def setting(value: KnobValue) -> str:
    """A knob's value as YAML writes it."""
    if value is None:
        return "default"
    return str(value).lower() if isinstance(value, bool) else str(value)


def values(searched: Sequence[KnobValue], held_back: Sequence[KnobValue] = ()) -> str:
    """The values of a knob; `held_back`: values that a search tries only if it finds that loading waits."""
    at_hand = ", ".join(setting(value) for value in searched if value not in held_back)
    more = ", ".join(setting(value) for value in searched if value in held_back)
    return f"{at_hand}; {more} if loading waits" if more else at_hand


def gains(document: Mapping[str, Any]) -> dict[str, str]:
    """Knob → the gain of its setting in the result over leaving it out: `+62 %`, `+62 % (expected)`, `unclear (-2.0 to
    +5.1 %)`. If two knobs change together, the second refers to the first."""
    found: dict[str, str] = {}
    for entry in document.get("settings", []):
        if entry["kept"]:
            first, *others = entry["set"]
            found |= {first: _gain(entry), **dict.fromkeys(others, f"with {first}")}
    return found


def left_alone(document: Mapping[str, Any]) -> list[str]:
    """Knobs whose tested settings have no useful gain, each once; with the value where a smaller one is emitted."""
    entries = [entry for entry in document.get("settings", []) if not entry["kept"]]
    changed = {knob for entry in document.get("settings", []) if entry["kept"] for knob in entry["set"]}
    tried = [(knob, value) for entry in entries for knob, value in entry["set"].items()]
    return list(dict.fromkeys(f"{knob} {setting(value)}" if knob in changed else knob for knob, value in tried))


def left_out(document: Mapping[str, Any]) -> list[str]:
    """Tested settings without a useful gain: `pin_memory true: +0.2 %, left at false`. Settings that were measured
    together are listed together."""
    said = []
    for entry in document.get("settings", []):
        if not entry["kept"]:
            own = ", ".join(f"{knob} {setting(value)}" for knob, value in entry["set"].items())
            before = ", ".join(setting(value) for value in entry["instead_of"].values())
            said.append(f"{own}: {_gain(entry)}, left at {before}")
    return said


def _gain(entry: Mapping[str, Any]) -> str:
    if entry["gain"] is None:
        return "set by the spec" if entry["source"] == "spec" else "needed by the others"
    if not entry.get("known", True):
        if not entry.get("ci95"):
            return "unclear"
        low, high = (round(100 * end, 1) + 0.0 for end in entry["ci95"])  # no −0
        return f"unclear ({low:+.1f} to {high:+.1f} %)"
    percent = 100 * entry["gain"]
    shown = f"{percent:+,.0f} %" if abs(percent) >= 10 else f"{percent:+.1f} %"
    return shown if entry["source"] == "measured" else f"{shown} (expected)"


def changes(config: TrainConfig, baseline: TrainConfig) -> str:
    """How `config` differs from the baseline: `micro_batch_size 16, amp_dtype bf16`."""
    different = config.differences(baseline)
    return ", ".join(f"{knob} {setting(own)}" for knob, (own, _) in different.items()) or "the baseline"


def configurations(count: float, points: int) -> str:
    """How many configurations a space has: `1,440`, or `up to 2,000,000` if they were not counted."""
    return f"up to {points:,}" if count == float("inf") else f"{count:,}"


def constraint(text: str, *, before_trials: bool, baseline_meets: bool) -> str:
    """When a constraint is checked, and what that means for the baseline."""
    when = (
        "violating configurations are not tried"
        if before_trials
        else "measured; violating configurations are never the result"
    )
    return f"{text}: {when}{'' if baseline_meets else '; the baseline violates it and is still measured'}"


def interval(ends: Sequence[float] | None) -> str:
    """`1.38 to 1.65`, or `unknown`."""
    return f"{ends[0]:.2f} to {ends[1]:.2f}" if ends else "unknown"


def speedup(document: Mapping[str, Any]) -> str:
    """`1.51× (95 % interval 1.38 to 1.65)`."""
    return f"{document['speedup']['ratio']:.2f}×{sure(document)}"


def sure(document: Mapping[str, Any]) -> str:
    """How sure the speed-up is: ` (95 % interval 1.38 to 1.65)`."""
    ends = document["speedup"]["ci95"]
    return f" (95 % interval {interval(ends)})" if ends else " (not yet confirmed)"


def verdict(document: Mapping[str, Any]) -> str:
    """`Stable: no instability seen, 100 steps in a row.`; empty if the result is not confirmed: a note says why."""
    if document["stability"]["verdict"] != "stable":
        return ""
    steps = soaked(document)
    return f"Stable: no instability seen{f', {steps} steps in a row' if steps else ''}."
