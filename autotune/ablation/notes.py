"""Notes that are needed to understand the results."""

from __future__ import annotations

from collections.abc import Iterator

from autotune.ablation.analyse import Analysis
from autotune.ablation.design import Design
from autotune.records import Facts
from autotune.spec.ablation import FEWEST_ROUNDS

_STARVED = 0.3
"""If at least this share of a step waits for data, faster computing has little effect."""
_NOISY = 0.1
"""Share of disturbed blocks from which on there is a note."""


def notes_on(design: Design, analysis: Analysis, facts: Facts) -> Iterator[str]:
    """One sentence each."""
    cells = analysis.cells()
    if analysis.rounds < FEWEST_ROUNDS:
        yield f"only {analysis.rounds} complete rounds, too few to judge the spread; run the same command to continue"
    waiting = cells[0].data_wait_fraction or 0.0
    if waiting > _STARVED:
        yield (
            f"the plain cell waits for data {100 * waiting:.0f} % of its time, so faster computing has little effect; "
            "add loader processes: --set baseline.num_workers=4"
        )
    if (share := analysis.disturbed_share()) > _NOISY:
        yield f"other work or throttling disturbed {100 * share:.0f} % of the timed blocks"
    yield from _on_knobs(design, facts)
    for cell in cells:
        yield from (f"{' + '.join(cell.on) or 'plain'}: {failure}" for failure in cell.failures)


def _on_knobs(design: Design, facts: Facts) -> Iterator[str]:
    full = design.configs[design.full]
    for factor in design.factors:
        if factor.knob == "grad_accum_steps" and facts.workload.batch_norm:
            yield (
                f"BatchNorm takes its statistics from the micro-batch, with {factor.label} {full.micro_batch_size} "
                f"samples instead of {design.effective_batch_size}, which changes what is learned"
            )
        if factor.knob == "pin_memory" and not full.num_workers:
            yield (
                "without loader processes, the training loop itself pins each batch; to see what pinning can gain, "
                "add some: --set baseline.num_workers=4"
            )
