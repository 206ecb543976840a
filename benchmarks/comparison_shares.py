"""How often the words of simulated confirmations are right, how often their intervals hold the truth, and how wide
these are beside those of somebody who knows the noise.

    PYTHONPATH=tests python benchmarks/comparison_shares.py [CONFIRMATIONS [SEED]]

Each confirmation looks after every round whether to stop, and states the best of three finalists; `pair` has one. A row
for each kind of machine and noise; in each column the most rounds that there are. A
new SEED is a new sample, one that no constant of `autotune.stats` was chosen by.
"""

from __future__ import annotations

import itertools
import math
import sys

from support.comparisons import THREE_ALIKE, TWO, Kind, shares, shares_by_rounds

from autotune.stats import Outcome

NOISES = (0.002, 0.01, 0.03, 0.10, 0.25)
ROUNDS = (2, 3, 5, 10)
WORDS = (
    ("1.3 times faster, 10 % noise, 6 rounds", Kind.PLAIN, 0.10, (0.0, math.log(1.3), -0.1, -0.2), 6),
    ("three 1.3 times faster, the same", Kind.PLAIN, 0.10, (0.0, *[math.log(1.3)] * 3), 6),
    ("2 times faster, 10 % noise, 2 rounds", Kind.PLAIN, 0.10, (0.0, math.log(2), -0.1, -0.2), 2),
    ("three 2 times faster, the same", Kind.PLAIN, 0.10, (0.0, *[math.log(2)] * 3), 2),
    *(
        (f"identical, {kind}, {n:.0%}, {r} rounds", kind, n, (0.0,) * 4, r)
        for kind, (n, r) in itertools.product(Kind, ((0.03, 3), (0.10, 5), (0.10, 10)))
    ),
)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    print("share of the 95 % intervals that hold the truth, and their width over that of one who knows the noise")
    print(f"{'machine':20}" + "".join(f"{f'ratio, {r} rounds':>17}" for r in ROUNDS), end="")
    print("".join(f"{f'throughput, {r}':>17}" for r in ROUNDS))
    for truths, kind, noise in itertools.product((THREE_ALIKE, TWO), Kind, NOISES):
        found = shares_by_rounds(kind, noise, truths, ROUNDS, count, seed)
        name = f"{'pair, ' if truths is TWO else ''}{kind} {noise:.1%}"
        ratios = "".join(f"{one.ratio_covered:9.3f} ×{one.ratio_width / one.ratio_oracle:5.2f} " for one in found)
        rates = "".join(f"{one.rate_covered:9.3f} ×{one.rate_width / one.rate_oracle:5.2f} " for one in found)
        print(f"{name:20}{ratios}{rates}", flush=True)
    print("\nshare of each word")
    print(f"{'':40}" + "".join(f"{outcome:>11}" for outcome in Outcome) + "   rounds")
    for name, kind, noise, truths, rounds in WORDS:
        one = shares(kind, noise, truths, rounds, 4 * count, seed)
        print(f"{name:40}" + "".join(f"{one.share(each):11.3f}" for each in Outcome) + f"{one.rounds:9.1f}", flush=True)


if __name__ == "__main__":
    main()
