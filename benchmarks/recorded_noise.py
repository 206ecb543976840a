"""Searches on a recorded machine with bursts of other work: how good what they choose is, and how true their figures.

PYTHONPATH=tests python benchmarks/recorded_noise.py [SEEDS]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from support.recorded import Recording, search_recorded


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    recording = Recording.noisy()
    with tempfile.TemporaryDirectory() as folder:
        found = [search_recorded(recording, Path(folder), seed) for seed in range(seeds)]
    print("chosen ÷ best:", [round(ratio, 3) for ratio in sorted(one.chosen_over_best for one in found)])
    print("emitted ÷ truth:", [round(ratio, 3) for ratio in sorted(one.emitted_over_truth for one in found)])


if __name__ == "__main__":
    main()
