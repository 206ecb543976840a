"""Part 5: whether training with the result converges as well: losses, and every stability test with its value and
limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from autotune.config import TrainConfig
from autotune.report import words
from autotune.report.cleaning import one_line
from autotune.report.html.charts import chart
from autotune.report.html.parts import Markup, joined, section, table, tag
from autotune.report.reading import Reading
from autotune.stats import written


def _share(value: float) -> str:
    return f"{written(100 * value, 3)} %"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _number(value: float) -> str:
    return written(value)


def _times(value: float) -> str:
    return f"{written(value, 3)}×"


_Gate = tuple[str, str, Callable[[float], str]]
GATES: Mapping[str, _Gate] = {
    "finite_loss": ("losses that are not finite", "≤", _count),
    "finite_gradients": ("steps with gradients that are not finite", "≤", _count),
    "skipped_steps": ("optimizer steps that the GradScaler skipped", "≤", _share),
    "loss_scale": ("lowest scale of the GradScaler", "≥", _number),
    "fp16_range": ("largest activation; the limit is the largest fp16 number", "≤", _number),
    "memory_headroom": ("memory that stayed free at the peak", "≥", _share),
    "host_memory_headroom": ("host memory that stayed free", "≥", _share),
    "shm_headroom": ("/dev/shm that stayed free", "≥", _share),
    "allocator_retries": ("times the allocator had to free cached memory and retry", "≤", _count),
    "memory_growth": ("memory growth per step", "≤", words.memory),
    "probe": ("the watched run finished", "≥", _count),
    "gradient_underflow": ("gradient elements that underflowed to zero", "≤", _share),
    "first_gradient_cosine": ("cosine of the first gradient with fp32's", "≥", _number),
    "loss_rise": ("last loss divided by the first", "≤", _times),
    "loss_spikes": ("largest loss divided by the median before it", "≤", _times),
    "loss_against_reference": ("loss above fp32's, in the worst window", "≤", _share),
    "loss_per_sample": ("loss above the baseline's at equal samples", "≤", _share),
    "reference_runs": ("runs of the fp32 reference", "≥", _count),
    "steady_state": ("confirming runs whose step times had not settled when timing began", "≤", _share),
    "soak": ("steps trained in a row", "≥", _count),
    "throughput": (
        "throughput of the long run over that of the confirming runs (nearer end of the range of one more run)",
        "",
        _times,
    ),
    "known_speedup": ("upper end of the speed-up's 95 % interval over the lower", "≤", _times),
    "undisturbed": ("confirming runs that other work on the machine disturbed throughout", "≤", _share),
    "nothing_faster": ("largest possible gain of the best other configuration", "≤", _times),
}
"""Name of a gate → what its value means, which side of the limit is good, and how it is formatted. A constraint of the
spec has its own text as its name."""
_SOAK = "soak_"


def stability(reading: Reading) -> Markup:
    checks = reading.document["stability"]["checks"]
    gates = table(["test", "value", "limit", "result"], map(_row, checks), numeric=(1, 2), class_="gates")
    return section(
        "stability",
        "Does it train as well?",
        chart(reading, "losses"),
        tag("h3", "The stability tests"),
        tag("p", _summary(reading)),
        gates if checks else None,
        _refused(reading),
    )


def _summary(reading: Reading) -> str:
    checks = reading.document["stability"]["checks"]
    if not checks:
        return "No test has run yet."
    told = [check for check in checks if check["conclusive"]]
    unsure = f"; {len(checks) - len(told)} inconclusive" if len(told) < len(checks) else ""
    return (
        f"{sum(check['passed'] for check in told)} of {len(checks)} tests passed{unsure}. "
        "“Passed” means that no problem was seen in the steps that were run. It cannot mean more."
    )


def _row(check: Mapping[str, Any]) -> tuple[object, ...]:
    name = str(check["name"])
    known = GATES.get(name) or GATES.get(name.removeprefix(_SOAK))
    meaning, sense, shown = known or ("constraint of the spec", "≤", _number)
    if known and name.startswith(_SOAK):
        meaning = f"in the long run (soak): {meaning}"
    about = f"{meaning}; {one_line(check['detail'], 300)}" if check["detail"] else meaning
    if not sense:  # a range; the nearer end is shown
        sense = "≥" if float(check["limit"]) < 1 else "≤"
    limit = f"{sense} {shown(float(check['limit']))}" if known else shown(float(check["limit"]))
    return (
        joined([tag("code", one_line(name)), tag("small", about)]),
        shown(float(check["value"])),  # JSON stores NaN as text
        limit,
        _result(check),
    )


def _result(check: Mapping[str, Any]) -> Markup:
    if not check["conclusive"]:
        return tag("span", "no answer", class_="unsure")
    if check["passed"]:
        return tag("span", "passed", class_="good")
    return tag("span", "warning" if check["warns_only"] else "failed", class_="bad")


def _refused(reading: Reading) -> Markup | None:
    entries = reading.document["stability"]["refused"]
    if not entries:
        return None
    parts: list[object] = [tag("h3", "Refused")]
    for entry in entries:
        what = words.changes(TrainConfig.from_dict(entry["config"]), reading.baseline)
        parts.append(tag("p", one_line(what, 400)))
        parts.append(table(["test", "value", "limit", "result"], map(_row, entry["checks"]), numeric=(1, 2)))
    return joined(parts)
