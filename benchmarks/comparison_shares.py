"""How often the words of simulated comparisons are right, and how often their intervals hold the truth.

    PYTHONPATH=tests python benchmarks/comparison_shares.py [COMPARISONS]

A row for each machine and true ratio: the share of each word, of intervals that hold the truth, and the mean rounds.
"""

from __future__ import annotations

import statistics
import sys
from collections import Counter

from support.comparisons import FASTER, MACHINES, SAME, SLOWER, comparisons

from autotune.stats import Outcome


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print(f"{'machine':13}{'ratio':>6}" + "".join(f"{outcome:>11}" for outcome in Outcome) + "   covered   rounds")
    for name, machine in MACHINES.items():
        for ratio in (SAME, 1.02, FASTER, SLOWER):
            found = comparisons(machine, ratio, count)
            shares = Counter(comparison.outcome for comparison in found)
            intervals = [comparison.ratio.interval for comparison in found]
            covered = statistics.fmean(each is not None and each.low <= ratio <= each.high for each in intervals)
            rounds = statistics.fmean(comparison.pairs for comparison in found)
            words = "".join(f"{shares[outcome] / count:11.3f}" for outcome in Outcome)
            print(f"{name:13}{ratio:6.3f}{words}{covered:10.3f}{rounds:9.1f}", flush=True)


if __name__ == "__main__":
    main()
