"""The result as a Markdown note, which Optuna's dashboard shows with the study."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from autotune.emitted import batch_change
from autotune.report import words
from autotune.report.cleaning import one_line
from autotune.report.reading import Reading

SIGNATURE = "Written by autotune. It is rewritten unless you remove this line."
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~-])")


def note_on(reading: Reading) -> str:
    """The note. Text from a spec or from users' code is escaped, so that it is not read as Markdown or HTML."""
    return "\n".join([*_result(reading), "", *_settings(reading), "", *_stability(reading), "", *_further(reading)])


def _result(reading: Reading) -> Iterator[str]:
    document = reading.document
    ours, theirs = (words.rate(document[part]["samples_per_s"]) for part in ("measured", "baseline"))
    yield f"# {_plain(reading.name)}: {document['stability']['verdict']}"
    yield ""
    if reading.emitted == reading.baseline:
        yield f"**Keep your current settings**: nothing tested was reliably faster than {theirs} samples per second."
    else:
        yield f"**{words.speedup(document)}**: {ours} samples per second instead of {theirs}."
    if change := batch_change(reading.emitted, reading.baseline):
        yield ""
        yield _plain(change)
    if found := document["measured"].get("bottleneck"):
        yield ""
        yield f"{_plain(found)}."


def _settings(reading: Reading) -> Iterator[str]:
    changed = reading.emitted.differences(reading.baseline)
    if not changed:
        return
    yield "| setting | baseline | result |"
    yield "|---|---|---|"
    for knob, (own, before) in changed.items():
        yield f"| {_plain(knob)} | {_plain(words.setting(before))} | **{_plain(words.setting(own))}** |"


def _stability(reading: Reading) -> Iterator[str]:
    checks = reading.document["stability"]["checks"]
    passed = sum(bool(check["passed"]) for check in checks)
    yield f"{passed} of {len(checks)} stability checks passed."
    for config, failed in reading.refused.items():
        names = ", ".join(_plain(check["name"]) for check in failed if not check["passed"])
        yield f"- refused: {_plain(words.changes(config, reading.baseline))} ({names})"


def _further(reading: Reading) -> Iterator[str]:
    yield f"`autotune report {_in_code(str(reading.folder.path))}` explains it; pictures are among the artifacts."
    yield ""
    yield f"*{SIGNATURE}*"


def _plain(text: object) -> str:
    """`text` without markup, HTML and line breaks."""
    return _SPECIAL.sub(r"\\\1", html.escape(one_line(text), quote=False))


def _in_code(text: str) -> str:
    return one_line(text).replace("`", "'")
