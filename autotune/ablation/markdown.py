"""`ablation.md`: the tables, for a repository."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autotune.ablation import tables
from autotune.ablation.tables import Rows
from autotune.records import Ablation
from autotune.report import words


def document(ablation: Ablation) -> str:
    """The tables of one spec."""
    return "\n".join(_lines(ablation)) + "\n"


def overview(ablations: Sequence[Ablation]) -> str:
    """Several specs: their effects side by side, then a link to each."""
    parts = [
        "# What each technique gives, over all models",
        "",
        f"Made by `{ablations[0].command}` on {ablations[0].environment.device.name}.",
        "",
        "![Effects on throughput](ablation.svg)",
        "",
        *table(tables.overview_rows(ablations)),
        "",
        tables.reading(ablations[0]),
        "",
        *(f"- [{ablation.name}]({ablation.name}/ablation.md): {tables.caption(ablation)}" for ablation in ablations),
    ]
    return "\n".join(parts) + "\n"


def table(rows: Rows) -> list[str]:
    rule = ["---" if column < rows.left else "---:" for column in range(len(rows.headings))]
    return [_row(rows.headings), _row(rule), *map(_row, rows.rows)]


def _lines(ablation: Ablation) -> Iterator[str]:
    yield f"# {ablation.name}: what each technique gives, alone and together"
    yield f"\nMade by `{ablation.command}`: {tables.caption(ablation)}."
    yield f"\n**{tables.headline(ablation)}.**"
    yield "\n![Cells and effects](ablation.svg)\n"
    yield f"## Cells\n\n{_plain(ablation)}\n"
    yield from table(tables.cell_rows(ablation))
    yield "\n## Effects\n"
    yield from table(tables.effect_rows(ablation))
    yield f"\n{tables.reading(ablation)}"
    if together := ablation.together:
        beyond = together.beyond
        interval = f" ({words.interval(beyond.ci95)})" if beyond.ci95 else ""
        yield f"\nAll of them together give {beyond.ratio:.2f}×{interval} the product of the single effects."
    for heading, lines in (("Not tested here", ablation.dropped), ("To know", ablation.notes)):
        if lines:
            yield f"\n## {heading}\n"
            yield from (f"- {line}" for line in lines)


def _plain(ablation: Ablation) -> str:
    config = ablation.plain.config
    same = {knob: value for knob, value in config.to_dict().items() if value is not None and knob != "custom"}
    return "Plain is " + ", ".join(f"{knob} {words.setting(value)}" for knob, value in same.items()) + "."


def _row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |"
