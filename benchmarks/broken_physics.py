"""What `auto` loses where its model of performance is wrong: worlds that each break one of its assumptions.

    PYTHONPATH=tests python benchmarks/broken_physics.py [SEEDS]

Prints, for each world and strategy, the throughput that was found within 90 s over the best there is: the median over
the seeds, and the worst.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from support import worlds

from autotune.bench.replay import Plan, replay
from autotune.tables import write_table

STRATEGIES = ("auto", "gp")
BUDGET_S = 90.0


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    plan = Plan(strategies=STRATEGIES, seeds=seeds, budget_s=BUDGET_S, jobs=2)
    with tempfile.TemporaryDirectory() as folder:
        for world, table in worlds.BROKEN.items():
            path = Path(folder) / f"{world}.json.gz"
            write_table(path, table())
            for strategy, runs in replay(path, plan).runs.items():
                found = [run.found_over_best for run in runs]
                print(f"{world:28} {strategy:5} {statistics.median(found):.3f} {min(found):.3f}", flush=True)


if __name__ == "__main__":
    main()
