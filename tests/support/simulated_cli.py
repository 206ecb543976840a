"""`python -m support.simulated_cli search …`: the command line in a process of its own, on a simulated machine.

AUTOTUNE_TEST_WAIT names a file: at the fifth run it is written, and then a signal is waited for.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from autotune import cli, execution, search
from autotune.config import TrainConfig
from support.facts import cpu_facts
from support.simulation import Clock, FormulaBackend, good_sense

WAIT = "AUTOTUNE_TEST_WAIT"
_WAITS_AT = 5
_WAITS_S = 30.0


def main() -> None:
    clock = Clock()
    runs = 0

    def behave(config: TrainConfig) -> float:
        nonlocal runs
        runs += 1
        if runs == _WAITS_AT and WAIT in os.environ:
            Path(os.environ[WAIT]).touch()
            time.sleep(_WAITS_S)
        return good_sense(config)

    backend = FormulaBackend(clock, cpu_facts(), behave, noise=0.002, busy=0.0)
    real = search.search

    def on_its_clock(*arguments: Any, began_s: float, **options: Any) -> Any:
        return real(*arguments, clock=clock, **options)

    execution.start_all = lambda _spec, _folder: backend
    search.search = on_its_clock
    cli.main()


if __name__ == "__main__":
    main()
