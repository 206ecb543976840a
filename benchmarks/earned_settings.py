"""Whether each emitted setting earns its place, in worlds whose truth is known: what leaving it out would really cost.

    python benchmarks/earned_settings.py [--seeds 5] [--world NAME] [--hardware cpu|cpu-noisy|h200] [--show]

The space also has knobs that do nothing in these worlds, for searches to come upon by chance.
A row for each hardware: settings that searches kept, and how many of them they say gain less than 1 %, say are not
known to 1 %, and gain less than 1 % in truth; settings that they left out, and how many gain 1 % in truth.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from worlds import in_memory, spec_of

from autotune.config import TrainConfig
from autotune.execution.simulated import SimulatedBackend, VirtualClock, World, truth
from autotune.execution.simulated.backend import facts_of
from autotune.execution.simulated.catalogue import HARDWARE, worlds
from autotune.search import build_space, search
from autotune.spec import load_spec, parse_spec
from autotune.store import StudyFolder

EARNS = 0.01
DO_NOTHING = {"fused_optimizer": [False, True], "activation_checkpointing": [False, True]}
ALMOST = 0.002
"""Truths come from discrete events and are themselves known to about as much."""
COLUMNS = (
    "hardware",
    "kept",
    "said below 1 %",
    "not known",
    "truly below 1 %",
    "truly below 0",
    "left out",
    "worth 1 %",
)


@dataclass(frozen=True, kw_only=True)
class Stated:
    """One entry of `settings` in `best.yaml`, and the truth of it."""

    world: str
    seed: int
    entry: dict[str, Any]
    true_gain: float

    @property
    def is_kept(self) -> bool:
        return bool(self.entry["kept"])

    @property
    def is_known(self) -> bool:
        return bool(self.entry.get("known", True))


def spec(world: World, seed: int) -> dict[str, Any]:
    document = spec_of(world, seed, "auto", None)
    return {**document, "search": {**document["search"], **DO_NOTHING}}


def emitted(world: World, seed: int) -> dict[str, Any]:
    clock = VirtualClock()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "spec.yaml"
        path.write_text(yaml.safe_dump(spec(world, seed)))
        found = search(
            load_spec(path),
            StudyFolder(Path(directory) / "study"),
            open_study=in_memory,
            start_backend=SimulatedBackend(world, clock, seed),
            clock=clock,
        )
    return dict(found.best)


def stated(world: World, seed: int) -> Iterator[Stated]:
    space = build_space(parse_spec(spec(world, seed), "."), facts_of(world))
    best = emitted(world, seed)
    config = TrainConfig.from_dict(best["config"])
    for entry in best["settings"]:
        if entry["gain"] is None:  # nothing that the search could leave out
            continue
        values = entry["instead_of"] if entry["kept"] else entry["set"]
        other = space.complete(config.with_values(values))
        ratio = truth(world, config) / truth(world, other)
        true_gain = (ratio if entry["kept"] else 1 / ratio) - 1
        yield Stated(world=world.name, seed=seed, entry=entry, true_gain=true_gain)


def row(hardware: str, found: list[Stated]) -> str:
    kept, left = [one for one in found if one.is_kept], [one for one in found if not one.is_kept]
    counts = (
        len(kept),
        sum(one.is_known and one.entry["gain"] < EARNS for one in kept),
        sum(not one.is_known for one in kept),
        sum(one.true_gain < EARNS - ALMOST for one in kept),
        sum(one.true_gain < -ALMOST for one in kept),
        len(left),
        sum(one.true_gain > EARNS + ALMOST for one in left),
    )
    return " | ".join([hardware, *map(str, counts)])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--world", action="append")
    parser.add_argument("--hardware", action="append", choices=list(HARDWARE))
    parser.add_argument("--show", action="store_true", help="print every setting")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    print(" | ".join(COLUMNS), flush=True)
    for hardware in asked.hardware or HARDWARE:
        found: list[Stated] = []
        for world in worlds(HARDWARE[hardware]).values():
            if asked.world and world.name not in asked.world:
                continue
            for seed in range(asked.seeds):
                found += stated(world, seed)
                for one in found if asked.show else ():
                    if (one.world, one.seed) == (world.name, seed):
                        said = {key: value for key, value in one.entry.items() if key != "instead_of"}
                        print(f"{world.name}, {seed}: true {one.true_gain:+.4f} {said}", flush=True)
        print(row(hardware, found), flush=True)


if __name__ == "__main__":
    main()
