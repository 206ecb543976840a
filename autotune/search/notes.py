"""What a reader of the result should know before relying on it, in words."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from autotune.config import TrainConfig
from autotune.emitted import batch_change
from autotune.records import Facts, Purpose, TrialRecord
from autotune.search.figures import is_ok
from autotune.search.gates import SOAK_THROUGHPUT
from autotune.search.smaller_baseline import said_by

_EVEN = 1.05


def notes_on(
    document: dict[str, Any],
    records: Sequence[TrialRecord],
    baseline: TrainConfig,
    facts: Facts,
    *,
    interrupted: bool = False,
) -> tuple[str, ...]:
    """One sentence each, the most important first."""
    config = TrainConfig.from_dict(document["config"])
    notes = [
        _on_verdict(document, config == baseline, interrupted),
        said_by(records, baseline),
        _on_cold_baseline(document, records),
        _on_batch(config, baseline, document["stability"]["checks"]),
        _on_mean_of_means(config, records),
        _on_batch_norm(config, baseline, facts),
    ]
    notes += [_on_refused(refused, baseline) for refused in document["stability"]["refused"]]
    notes += [*map(_on_check, document["stability"]["checks"]), _on_disturbances(document)]
    notes += [_on_ranks(config, records), _on_unreadable(records), _on_failures(records)]
    return tuple(note for note in notes if note)


def _on_verdict(document: dict[str, Any], is_baseline: bool, interrupted: bool) -> str | None:
    verdict, checks = document["stability"]["verdict"], document["stability"]["checks"]
    passing = " that passed its gates" if document["stability"]["refused"] else ""
    none = f"No configuration{passing} was faster than the baseline beyond doubt"
    stands = f"{none}, so the baseline itself stands in best.yaml."
    if verdict == "stable" and document["speedup"]["outcome"] != "faster" and not is_baseline:
        return (
            f"The baseline does not meet the spec's constraints; this is the fastest that does, at "
            f"{document['speedup']['ratio']:.2f} times the baseline's speed."
        )
    if verdict == "stable":
        return stands if is_baseline else None
    if interrupted:
        return "Unconfirmed: interrupted. The same command goes on where it stopped."
    missing = [check["detail"] or check["name"] for check in checks if not (check["passed"] or check["warns_only"])]
    why = "; ".join(missing) or "the time left was too short for confirming rounds, and one run alone may be luck"
    if is_baseline:
        compared = stands if missing else "The baseline itself stands in best.yaml so far."
        return f"{compared} Unconfirmed: {why}. A larger --budget goes on."
    contradicted = next((check for check in checks if check["name"] == SOAK_THROUGHPUT and not check["passed"]), None)
    if contradicted:
        slower = "training is slower once it goes on than at its beginning, most often because of the loader"
        because = f": {slower}" if float(contradicted["value"]) < 1 else ""
        return (
            f"Unconfirmed: {why}. The soak's figure is the one in best.yaml, and the comparison with "
            f"the baseline was made again with it{because}."
        )
    return f"Unconfirmed: {why}. Run the same command with a larger --budget to go on before you rely on it."


def _on_cold_baseline(document: dict[str, Any], records: Sequence[TrialRecord]) -> str | None:
    """Where all that it was compared by is its first run."""
    again = (Purpose.REPEAT, Purpose.CONFIRM)
    if document["config"] == document["baseline"]["config"] or document["speedup"].get("pairs"):
        return None
    if any(record.purpose in again and is_ok(record) for record in records):
        return None
    return (
        "The baseline ran cold, once and before all others: what it had to read from disk, they found in memory, so "
        "that the speed-up may be lower."
    )


def _on_batch(config: TrainConfig, baseline: TrainConfig, checks: Sequence[dict[str, Any]]) -> str | None:
    change = batch_change(config, baseline)
    seen = next((check["detail"] for check in checks if check["name"] == "loss_per_sample"), "")
    learnt = f" Loss {seen}." if seen else ""
    return change and f"{change}{learnt}"


def _on_mean_of_means(config: TrainConfig, records: Sequence[TrialRecord]) -> str | None:
    if config.grad_accum_steps == 1 or not any(record.result.mean_of_means for record in records):
        return None
    return (
        f"The {config.grad_accum_steps} micro-batches of a step differ in shape, and the loss function returns the "
        "mean over each: what is trained on is a mean of means, in which the tokens of a short one weigh more. Let it "
        "return (summed_loss, count) instead, the count being what the sum is over."
    )


def _on_batch_norm(config: TrainConfig, baseline: TrainConfig, facts: Facts) -> str | None:
    if not facts.workload.batch_norm or config.micro_batch_size >= baseline.micro_batch_size:
        return None
    return (
        f"The model has BatchNorm, which sees the micro-batch: its statistics now come from {config.micro_batch_size} "
        f"samples instead of {baseline.micro_batch_size}."
    )


def _on_refused(refused: dict[str, Any], baseline: TrainConfig) -> str:
    """A faster configuration that was not emitted."""
    changes = TrainConfig.from_dict(refused["config"]).differences(baseline)
    settings = ", ".join(f"{knob} {own}" for knob, (own, _) in changes.items())
    faults = "; ".join(f"{check['name']}: {check['detail'] or check['value']}" for check in refused["checks"])
    return f"Refused: {settings} ({faults})."


def _on_check(check: dict[str, Any]) -> str | None:
    """A gate that warned, or could not tell."""
    about = f": {check['detail']}" if check["detail"] else ""
    if not check["passed"] and check["warns_only"]:
        return f"Warning, {check['name']} is {float(check['value']):.4g}, beyond {float(check['limit']):.4g}{about}."
    if not check["conclusive"]:
        return f"{check['name']} could not tell{about}."
    return None


def _on_disturbances(document: dict[str, Any]) -> str | None:
    disturbed = document["measured"]["disturbed_blocks"] + document["baseline"]["disturbed_blocks"]
    if not disturbed:
        return None
    blocks = "1 timed block was" if disturbed == 1 else f"{disturbed} timed blocks were"
    return (
        f"{blocks} disturbed, because the machine was busy otherwise or throttled; undisturbed ones were measured in "
        "their place where there were any."
    )


def _on_ranks(config: TrainConfig, records: Sequence[TrialRecord]) -> str | None:
    """Which of them the others wait for, over all runs of `config`."""
    own: dict[int, list[float]] = {}
    devices: dict[int, str] = {}
    for rank in (rank for record in records if record.result.config == config for rank in record.result.ranks):
        if rank.own_step_s is not None:
            own.setdefault(rank.rank, []).append(rank.own_step_s)
            devices[rank.rank] = rank.device
    if len(own) < 2:
        return None
    means = {rank: statistics.fmean(seconds) for rank, seconds in own.items()}
    slowest, fastest = max(means, key=means.__getitem__), min(means.values())
    if means[slowest] < _EVEN * fastest:
        return f"The {len(means)} ranks take equally long for what each does alone, to within {_EVEN - 1:.0%}."
    return (
        f"Rank {slowest} ({devices[slowest]}) is the slowest: before gradients are exchanged it takes "
        f"{1000 * means[slowest]:.3g} ms of a step, {means[slowest] / fastest - 1:.0%} more than the fastest rank; all "
        "others wait for it."
    )


def _on_unreadable(records: Sequence[TrialRecord]) -> str | None:
    paths = sorted({path for record in records for path in record.result.unreadable_samples})
    if not paths:
        return None
    files = "1 image cannot" if len(paths) == 1 else f"{len(paths)} images cannot"
    return f"{files} be read and was replaced by the next one; your own training may stop there. First: {paths[0]}"


def _on_failures(records: Sequence[TrialRecord]) -> str | None:
    broken = [record for record in records if record.result.status in ("failed", "crashed")]
    if not broken:
        return None
    first = broken[0]
    where = "while confirming" if first.purpose in (Purpose.CONFIRM, Purpose.SOAK) else "in the search"
    reason = first.result.failure.reason if first.result.failure else first.result.status
    trials = "1 trial" if len(broken) == 1 else f"{len(broken)} trials"
    return f"{trials} broke {where}; the first, trials/{first.number:04d}.json: {reason}"
