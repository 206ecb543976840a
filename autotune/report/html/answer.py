"""Part 1: the answer in one sentence, and the settings to copy."""

from __future__ import annotations

from collections.abc import Iterator

from autotune.errors import AutotuneError
from autotune.report import words
from autotune.report.cleaning import one_line
from autotune.report.html.parts import Markup, code, details, joined, listing, section, table, tag, to_copy
from autotune.report.reading import Reading
from autotune.search.gates import SOAK_THROUGHPUT
from autotune.search.notes import notes_on

_TARGETS = ("yaml", "torch", "timm", "transformers", "accelerate", "lightning", "deepspeed", "json")


def answer(reading: Reading) -> Markup:
    return section(
        "answer",
        "The answer",
        tag("p", sentence(reading), class_="lead"),
        tag("p", *_verdict(reading)),
        _settings(reading),
        _notes(reading),
        tag("h3", "Use it"),
        tag("div", *_exports(reading), class_="exports"),
    )


def sentence(reading: Reading) -> Markup:
    """What to do, and what it brings."""
    document = reading.document
    ours, theirs = (words.rate(document[part]["samples_per_s"]) for part in ("measured", "baseline"))
    if reading.emitted == reading.baseline:
        return joined(
            [
                tag("strong", "Keep your current settings"),
                f": nothing tested was reliably faster. It trains {ours} samples per second.",
            ]
        )
    count = len(reading.emitted.differences(reading.baseline))
    settings = "one setting" if count == 1 else f"{count} settings"
    ratio, interval = document["speedup"]["ratio"], document["speedup"]["ci95"]
    sure = f" (95 % interval {words.interval(interval)})" if interval else ""
    if document["stability"]["verdict"] != "stable":
        sure = f"{sure}, not yet confirmed"
    return joined(
        [
            f"Change {settings}, and training runs ",
            tag("strong", f"{ratio:.2f}× as fast"),
            f"{sure}: {ours} samples per second instead of {theirs}.",
        ]
    )


def _verdict(reading: Reading) -> Iterator[object]:
    document = reading.document
    verdict = str(document["stability"]["verdict"])
    yield tag("span", verdict, class_=f"verdict {'stable' if verdict == 'stable' else 'unconfirmed'}")
    soaked = words.soaked(document)
    if verdict == "stable":
        yield " No instability was seen in the steps that were run"
        yield f", {soaked} of them in a row. " if soaked else ". "
    else:
        failed = {check["name"] for check in document["stability"]["checks"] if not check["passed"]}
        if SOAK_THROUGHPUT in failed:
            yield " The long run (soak) contradicts the confirming runs; the throughput shown is that of the long run. "
        else:
            yield " The budget ended before all tests, or the study is still running. "
    memory, before = document["measured"]["peak_memory_bytes"], document["baseline"]["peak_memory_bytes"]
    times = f", {memory / before:.2f} times the baseline's" if before else ""
    yield f"Peak memory is {words.memory(memory)}{times}. " if memory else ""
    yield f"Effective batch size {reading.emitted.effective_batch_size}"
    before_batch = reading.baseline.effective_batch_size
    yield "." if reading.emitted.effective_batch_size == before_batch else f" instead of {before_batch}."


def _settings(reading: Reading) -> Markup:
    changes = reading.emitted.differences(reading.baseline)
    if not changes:
        rows = reading.emitted.differences(reading.emitted.replace(micro_batch_size=-1, grad_accum_steps=-1))
        kept = [(code(knob), tag("b", words.setting(own))) for knob, (own, _) in rows.items()]
        return table(["keep", "at"], kept, class_="settings")
    gains = words.gains(reading.document)
    shown = [
        (
            code(one_line(knob)),
            one_line(words.setting(before)),
            tag("b", one_line(words.setting(own))),
            *([one_line(gains.get(knob, ""))] if gains else []),
        )
        for knob, (own, before) in changes.items()
    ]
    headings = ["change", "from", "to", *(["worth"] if gains else [])]
    left = [one_line(said) for said in words.left_out(reading.document)]
    parts: list[Markup] = [table(headings, shown, class_="settings")]
    if gains:
        parts.append(tag("p", words.GAINS, class_="about"))
    return joined([*parts, tag("p", "Tried, no clear gain: ", "; ".join(left), ".")] if left else parts)


def _notes(reading: Reading) -> Markup | None:
    notes = notes_on(reading.document, reading.records, reading.baseline, reading.facts)
    said = [one_line(note, 600) for note in notes]
    return joined([tag("h3", "Before you rely on it"), listing(said)]) if said else None


def _exports(reading: Reading) -> Iterator[Markup]:
    from autotune.export import TARGETS, export, read_source

    try:
        source = read_source(reading.folder.path)
    except AutotuneError as error:
        yield tag("p", f"No export: {one_line(error, 400)}")
        return
    first = True
    for name in [*_TARGETS, *sorted(TARGETS.keys() - set(_TARGETS))]:
        try:
            made = export(source, name)
        except AutotuneError as error:
            content: list[object] = [tag("p", one_line(error, 400))]
        else:
            content = [part for file, written in made.files.items() for part in (tag("h4", file), to_copy(written))]
            content += [listing(one_line(note, 600) for note in made.notes)]
        yield details(name, *content, name="exports", open_=first)
        first = False
