"""Whole searches in worlds whose truth is known, over many seeds, in virtual time: are the numbers true?

    python benchmarks/worlds.py [--seeds 100] [--world NAME] [--hardware cpu|cpu-noisy|h200] [--strategy auto]
                                [--budget 5m] [--use-all] [--constraint LINE] [--markdown docs/worlds.md]

Prints one row for each world and hardware. What the columns mean is said below the table.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import math
import multiprocessing
import statistics
import tempfile
import time
import traceback
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage

from autotune.config import TrainConfig
from autotune.execution.simulated import SimulatedBackend, VirtualClock, World, truth
from autotune.execution.simulated.backend import facts_of
from autotune.execution.simulated.catalogue import HARDWARE, worlds
from autotune.records import SEARCHING, Purpose, TrialRecord
from autotune.search import Listener, build_space, search
from autotune.search.earning import Gain, simplest
from autotune.search.space import Space
from autotune.search.storage import name_metric
from autotune.spec import load_spec, parse_spec
from autotune.store import StudyFolder

CLOSE = 0.03
LEGEND = """
`±3 %`: share of searches whose emitted `samples_per_s` is within 3 % of the truth of the emitted configuration.
`good`: share whose emitted configuration has at least 97 % of the best true throughput in the space (95 % in worlds \
marked *noisy*). `figure in`, `speed-up in`: share whose stated 95 % interval holds the truth; of the speed-up, where \
one is emitted with an interval. `width`: mean half-width of the figure's interval, in %, and the smallest possible \
one: 1.96 × the true standard deviation of one process's speed ÷ √(confirming runs of what is emitted). `slower`: \
share whose emitted configuration is truly slower than the baseline. `idle`: share whose emitted one has settings, or \
more loader processes, that truly gain less than 1 %, all of them together. `stable`: share with that verdict. \
`trials`: median number of whole trials of the search, `sides`: of its measurements of one side alone. `a minute`: \
configurations that either has measured, for each minute that they took together (median). `done after`: median \
seconds until the whole search has ended, which may be before its budget has. `timed`: share of the seconds after the \
start-up in which timed steps ran, or a loader was drained alone. `failed`: searches that ended without a result.
"""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """One search, against the truth."""

    ratio: float
    """Emitted figure ÷ truth."""
    of_best: float
    """Truth of the emitted configuration ÷ best truth in the space."""
    of_baseline: float
    holds: bool | None
    speedup_holds: bool | None
    half_width: float | None
    """Of the logarithm of the figure."""
    best_half_width: float
    is_idle: bool
    """Whether settings of the emitted configuration truly gain less than 1 %."""
    stable: bool
    trials: int
    elapsed_s: float
    """Of the budget, virtual."""
    timed: float
    """Share of these seconds, from the beginning of the first run on, that blocks of timed steps took, and what was
    drained of loaders alone."""
    sides: int
    per_minute: float
    """Configurations that the search has measured, as a whole or one side of them, a minute of its runs."""
    config: dict[str, Any]
    seconds: float
    """Real ones."""


def spec_of(
    world: World, seed: int, strategy: str, budget: str | None, constraints: Sequence[str] = ()
) -> dict[str, Any]:
    listed = {name: list(value) if isinstance(value, tuple) else value for name, value in world.search}
    return {
        "name": "world",
        "model": {"timm": "resnet18"},
        "data": {"synthetic": {"image_size": 64, "samples": world.samples}},
        "training": {"effective_batch_size": world.effective_batch_size, "seed": seed},
        "budget": budget or world.budget,
        "baseline": dict(world.baseline),
        "search": listed,
        "constraints": list(constraints),
        "stability": {"soak_steps": 30},
        "strategy": {"name": strategy, "seed": seed},
    }


@functools.cache
def space_of(world: World) -> Space:
    return build_space(parse_spec(spec_of(world, 0, "random", None), "."), facts_of(world))


@functools.cache
def best_truth(world: World) -> float:
    return max(truth(world, config) for config in space_of(world).configurations())


def has_idle_settings(world: World, config: TrainConfig) -> bool:
    def true_gain(one: TrainConfig, other: TrainConfig) -> Gain:
        return Gain(truth(world, one) / truth(world, other), None, "measured")

    return simplest(config, space_of(world), true_gain) != config


def in_memory(folder: StudyFolder, sampler: BaseSampler) -> tuple[InMemoryStorage, optuna.Study]:
    """SQLite would take three quarters of a simulated search."""
    storage = InMemoryStorage()
    folder.database.write_text(uuid.uuid4().hex)
    study = optuna.create_study(storage=storage, study_name="autotune", sampler=sampler, direction="maximize")
    name_metric(study)
    return storage, study


def run(
    world: World,
    seed: int,
    strategy: str,
    budget: str | None,
    use_all: bool = False,
    constraints: Sequence[str] = (),
    keep: Path | None = None,
) -> Searched | str:
    """One whole search; the error's text where it ends without a result."""
    began_s = time.perf_counter()
    clock, records = VirtualClock(), list[TrialRecord]()
    with tempfile.TemporaryDirectory() if keep is None else contextlib.nullcontext(str(keep)) as directory:
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "spec.yaml").write_text(yaml.safe_dump(spec_of(world, seed, strategy, budget, constraints)))
        try:
            result = search(
                load_spec(folder / "spec.yaml"),
                StudyFolder(folder / "study"),
                use_all=use_all,
                listener=Listener(on_trial=records.append),
                open_study=in_memory,
                start_backend=SimulatedBackend(world, clock, seed),
                clock=clock,
            )
        except Exception as error:  # noqa: BLE001 - a search that fails is a row's last column
            return f"{type(error).__name__} in {_place(error)}: {error}"
    return judge(world, result.best, records, time.perf_counter() - began_s)


def _place(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def judge(world: World, best: dict[str, Any], records: Sequence[TrialRecord], seconds: float) -> Searched:
    config = TrainConfig.from_dict(best["config"])
    true, baseline = truth(world, config), truth(world, TrainConfig.from_dict(best["baseline"]["config"]))
    interval, ours = best["measured"]["samples_per_s_ci95"], best["speedup"].get("ci95")
    runs = sum(record.purpose is Purpose.CONFIRM and record.result.config == config for record in records)
    began_s = records[0].elapsed_s - records[0].result.wall_s
    elapsed_s = float(best["search"]["elapsed_s"])
    timed_s = math.fsum(_timed_s(record) for record in records)
    searching = [record for record in records if record.purpose in (*SEARCHING, Purpose.SIDE)]
    measured = {record.result.config for record in searching}
    is_other = config != TrainConfig.from_dict(best["baseline"]["config"])
    return Searched(
        ratio=best["measured"]["samples_per_s"] / true,
        of_best=true / best_truth(world),
        of_baseline=true / baseline,
        holds=interval[0] <= true <= interval[1] if interval else None,
        speedup_holds=ours[0] <= true / baseline <= ours[1] if ours and is_other else None,
        half_width=math.log(interval[1] / interval[0]) / 2 if interval and interval[0] > 0 else None,
        best_half_width=1.96 * world.hardware.noise.of_a_process / math.sqrt(max(runs, 1)),
        is_idle=is_other and has_idle_settings(world, config),
        stable=best["stability"]["verdict"] == "stable",
        trials=best["search"]["trials"],
        elapsed_s=elapsed_s,
        timed=timed_s / (elapsed_s - began_s),
        sides=sum(record.purpose is Purpose.SIDE for record in records),
        per_minute=60 * len(measured) / math.fsum(record.result.wall_s for record in searching),
        config=best["config"],
        seconds=seconds,
    )


def _timed_s(record: TrialRecord) -> float:
    result = record.result
    drained_s = result.side_rate.seconds if result.side == "loader" and result.side_rate else 0.0
    return math.fsum(block.seconds for block in result.blocks) + drained_s


def _share(flags: Iterable[bool | None]) -> str:
    known = [flag for flag in flags if flag is not None]
    return f"{100 * sum(known) / len(known):.0f}" if known else "–"


def row(world: World, hardware: str, results: Sequence[Searched | str]) -> list[str]:
    done = [result for result in results if isinstance(result, Searched)]
    wanted = 0.95 if world.is_noisy else 0.97
    widths = [result.half_width for result in done if result.half_width is not None]
    possible = statistics.fmean(result.best_half_width for result in done) if done else math.nan
    return [
        world.name + (" *noisy*" if world.is_noisy else ""),
        hardware,
        _share(abs(result.ratio - 1) <= CLOSE for result in done),
        f"{statistics.median(result.ratio for result in done):.3f}" if done else "–",
        _share(result.of_best >= wanted for result in done),
        f"{statistics.median(result.of_best for result in done):.3f}" if done else "–",
        _share(result.holds for result in done),
        _share(result.speedup_holds for result in done),
        f"{100 * statistics.fmean(widths):.1f} ({100 * possible:.1f})" if widths else "–",
        _share(result.of_baseline < 1 - 1e-3 for result in done),
        _share(result.is_idle for result in done),
        _share(result.stable for result in done),
        f"{statistics.median(result.trials for result in done):.0f}" if done else "–",
        f"{statistics.median(result.sides for result in done):.0f}" if done else "–",
        f"{statistics.median(result.per_minute for result in done):.0f}" if done else "–",
        f"{statistics.median(result.elapsed_s for result in done):.0f}" if done else "–",
        f"{100 * statistics.fmean(result.timed for result in done):.0f}" if done else "–",
        str(len(results) - len(done)),
    ]


COLUMNS = ["world", "hardware", "±3 %", "median figure ÷ truth", "good", "median of best", "figure in", "speed-up in"]
COLUMNS += [
    "width (possible), %",
    "slower",
    "idle",
    "stable",
    "trials",
    "sides",
    "a minute",
    "done after, s",
    "timed, %",
    "failed",
]


def table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [COLUMNS, ["---"] * len(COLUMNS), *rows])


def _job(job: tuple[World, int, str, str | None, bool, Sequence[str]]) -> Searched | str:
    return run(*job)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--world", action="append", help="several times for several; all where it is not given")
    parser.add_argument("--hardware", action="append", choices=list(HARDWARE))
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--budget", help="of each search; each world's own where it is not given")
    parser.add_argument("--use-all", action="store_true", help="spend each budget to its end")
    parser.add_argument("--constraint", action="append", default=[], help="what a configuration must meet to be tried")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--show", action="store_true", help="print every search")
    parser.add_argument("--markdown", type=Path, help="a page to put the table into, between its two markers")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    rows, began_s = [], time.perf_counter()
    with multiprocessing.get_context("fork").Pool(asked.processes) as pool:
        for hardware in asked.hardware or HARDWARE:
            for world in worlds(HARDWARE[hardware]).values():
                if asked.world and world.name not in asked.world:
                    continue
                seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
                jobs = [(world, seed, asked.strategy, asked.budget, asked.use_all, asked.constraint) for seed in seeds]
                results = pool.map(_job, jobs, chunksize=max(asked.seeds // (4 * asked.processes), 1))
                for seed, result in zip(seeds, results, strict=True) if asked.show else ():
                    print(seed, result)
                for failure in {result for result in results if isinstance(result, str)}:
                    print(failure)
                rows.append(row(world, hardware, results))
                print(" | ".join(rows[-1]), f"[{time.perf_counter() - began_s:.0f} s]", flush=True)
    command = f"Strategy `{asked.strategy}`, {asked.seeds} seeds each, {time.perf_counter() - began_s:.0f} s in all."
    text = f"{table(rows)}\n{LEGEND}\n{command}\n"
    print(text)
    if asked.markdown:
        page = asked.markdown.read_text()
        before, after = page.split("<!-- table -->\n")[0], page.split("<!-- end of table -->\n")[1]
        asked.markdown.write_text(f"{before}<!-- table -->\n{text}<!-- end of table -->\n{after}")


if __name__ == "__main__":
    main()
