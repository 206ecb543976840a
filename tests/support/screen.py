"""Views as they are drawn for a stream that is no terminal, and the snapshots that they are drawn from."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console, RenderableType

from autotune.config import TrainConfig
from autotune.records import Phase, Progress, Standing
from autotune.report.live import Screen

BASELINE = TrainConfig()
FAST = TrainConfig(micro_batch_size=64, amp_dtype="bf16", num_workers=2, prefetch_factor=2)
MIB = 1 << 20


def console(**options: Any) -> Console:
    return Console(file=StringIO(), width=100, force_terminal=False, **options)


def drawn(view: RenderableType) -> str:
    screen = console()
    screen.print(view)
    return text_of(screen)


def text_of(screen: Console) -> str:
    assert isinstance(screen.file, StringIO)
    return screen.file.getvalue()


def standing(config: TrainConfig, samples_per_s: float) -> Standing:
    return Standing(config=config, samples_per_s=samples_per_s, peak_memory_bytes=512 * MIB)


def progress(**changes: Any) -> Progress:
    values: dict[str, Any] = {
        "study": "mine",
        "phase": Phase.SEARCHING,
        "budget_s": 120.0,
        "elapsed_s": 30.0,
        "baseline": None,
        "leaders": (),
        "running": (),
        "by_status": {},
        **changes,
    }
    return Progress(**values)


def lines_of(*snapshots: Progress, quiet: bool = False) -> list[str]:
    screen = console()
    with Screen(screen, quiet=quiet) as show:
        for snapshot in snapshots:
            show(snapshot)
    return text_of(screen).splitlines()
