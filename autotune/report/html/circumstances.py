"""Part 7: what failed and why, what was not searched, the machine and its state, and how to repeat the study."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Iterator, Sequence

from autotune.records import Facts, MachineState, TrialRecord
from autotune.report import words
from autotune.report.cleaning import clean, one_line
from autotune.report.html.parts import Markup, code, details, joined, listing, section, table, tag, to_copy
from autotune.report.reading import Reading
from autotune.search.figures import has_failed
from autotune.spec import dump_yaml
from autotune.spec.durations import format_duration
from autotune.store import read_resolved_spec

_MOST_KINDS = 25
_MOST_OF_A_TEXT = 2000


def circumstances(reading: Reading) -> Markup:
    return section(
        "circumstances",
        "Failures, machine, how to repeat it",
        tag("h3", "What failed"),
        *_failures(reading.records),
        tag("h3", "What was not searched"),
        listing(one_line(dropped, 400) for dropped in reading.space.dropped)
        or tag("p", "Every knob was searched, over its whole domain."),
        tag("h3", "The machine"),
        table(["", ""], _machine(reading.facts), class_="facts"),
        tag("h3", "Its state while blocks were timed"),
        table(["", ""], _state(reading.records), class_="facts"),
        tag("h3", "How to repeat it"),
        *_again(reading),
    )


def _failures(records: Sequence[TrialRecord]) -> Iterator[Markup]:
    """Failures in groups with the same status and the same reason."""
    alike: dict[tuple[str, str], list[TrialRecord]] = {}
    for record in records:
        if has_failed(record):
            failure = record.result.failure
            reason = one_line(failure.reason, 300) if failure else "no reason given"
            alike.setdefault((str(record.result.status), reason), []).append(record)
    if not alike:
        yield tag("p", "Nothing: every trial has a measurement.")
    for (status, reason), found in sorted(alike.items(), key=lambda entry: -len(entry[1]))[:_MOST_KINDS]:
        trials = "1 trial" if len(found) == 1 else f"{len(found)} trials"
        numbers = ", ".join(str(record.number) for record in found[:12]) + (", …" if len(found) > 12 else "")
        failure, output = found[0].result.failure, found[0].result.output_tail
        said = [part for part in (failure.traceback if failure else "", output) if part.strip()]
        yield details(
            joined([tag("b", f"{trials} {status}"), f": {reason}"]),
            tag("p", f"Run {numbers}; the first one's settings: ", code(found[0].result.config.canonical_json())),
            *(tag("pre", clean(part.strip(), _MOST_OF_A_TEXT)) for part in said),
        )
    if len(alike) > _MOST_KINDS:
        yield tag("p", f"{len(alike) - _MOST_KINDS} more kinds of failures are in trials/.")


def _machine(facts: Facts) -> Iterator[tuple[str, object]]:
    device, host, work = facts.device, facts.host, facts.workload
    capability = f", compute capability {'.'.join(map(str, device.compute_capability or ()))}"
    yield (
        "device",
        f"{one_line(device.name)} ({device.kind}), {words.memory(device.total_memory_bytes)}"
        f"{capability if device.compute_capability else ''}",
    )
    yield "fast AMP", ", ".join(device.amp_dtypes) or "none"
    yield "compile", one_line(device.compile_refusal or "yes", 300)
    yield "host", f"{one_line(host.cpu)}, {host.usable_cores} usable cores, {words.memory(host.memory_bytes)}"
    yield "versions", ", ".join(f"{name} {version}" for name, version in host.versions.items())
    shape = words.samples(work)
    count = "an unknown number of" if work.dataset_samples is None else f"{work.dataset_samples:,}"
    yield (
        "workload",
        f"{work.parameters:,} parameters{', BatchNorm' if work.batch_norm else ''}; {count} samples of {shape}",
    )


def _state(records: Sequence[TrialRecord]) -> Iterator[tuple[str, object]]:
    blocks = [block for record in records for block in record.result.blocks]
    states = [block.machine for block in blocks if block.machine]
    disturbed = sum(bool(block.disturbances) for block in blocks)
    share = f" ({disturbed / len(blocks):.1%})".replace("%", " %") if blocks and disturbed else ""
    yield "disturbed blocks", f"{disturbed:,} of {len(blocks):,}{share}"
    yield from _range("other work", [state.outside_load for state in states], "{:.2f} cores")
    yield from _range("own work", [state.own_load for state in states], "{:.2f} cores")
    yield from _range("clock", [state.sm_clock_mhz for state in states], "{:,.0f} MHz")
    yield from _range("power", [state.power_w for state in states], "{:.0f} W")
    yield from _range("temperature", [state.temperature_c for state in states], "{:.0f} °C")
    if any(state.sm_clock_mhz is not None for state in states):
        yield "throttled", _throttled(states)


def _range(name: str, values: Sequence[float | None], form: str) -> Iterator[tuple[str, object]]:
    """The range of the values; nothing if none was recorded."""
    seen = sorted(value for value in values if value is not None)
    if seen:
        middle, low, high = (form.format(value) for value in (statistics.median(seen), seen[0], seen[-1]))
        yield name, f"{middle} (median), {low} to {high}"


def _throttled(states: Sequence[MachineState]) -> str:
    counts: dict[str, int] = {}
    for state in states:
        for reason in state.throttle_reasons:
            counts[reason] = counts.get(reason, 0) + 1
    return ", ".join(f"{one_line(reason)} in {count:,} blocks" for reason, count in counts.items()) or "never"


def _again(reading: Reading) -> Iterator[Markup]:
    document = reading.document
    budget = format_duration(round(document["search"]["budget_s"]))
    command = [
        "autotune",
        "search",
        "spec.yaml",
        "--budget",
        budget,
        "--out",
        f"studies/{reading.folder.path.name}-again",
    ]
    yield tag("p", "Save the spec below as ", code("spec.yaml"), " in the folder of the code that it names, and run:")
    yield to_copy(shlex.join(command))
    yield tag("p", "Check in one minute whether the result still holds on this machine:")
    yield to_copy(shlex.join(["autotune", "verify", str(reading.folder.path)]))
    yield details("The resolved spec", to_copy(dump_yaml(read_resolved_spec(reading.folder))))
    yield tag("p", f"Spec SHA-256 {document['spec_sha256']}; result written {document['created']}.", class_="fine")
