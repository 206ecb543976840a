"""What a reader of the result should know before relying on it, in words."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from autotune.config import TrainConfig
from autotune.emitted import batch_change
from autotune.records import Facts, Purpose, TrialRecord
from autotune.search.figures import is_ok
from autotune.search.gates import BUDGET_ENDED, SOAK_THROUGHPUT
from autotune.search.smaller_baseline import said_by
from autotune.stats import written

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
        _on_stream(config, facts),
    ]
    notes += [_on_refused(refused, baseline) for refused in document["stability"]["refused"]]
    notes += [*map(_on_check, document["stability"]["checks"]), _on_disturbances(document)]
    notes += [_on_ranks(config, records), _on_unreadable(records), _on_failures(records, baseline)]
    return tuple(note for note in notes if note)


def _on_verdict(document: dict[str, Any], is_baseline: bool, interrupted: bool) -> str | None:
    verdict, checks = document["stability"]["verdict"], document["stability"]["checks"]
    passing = " that passed the stability tests" if document["stability"]["refused"] else ""
    keeps = f"No configuration{passing} was reliably faster than the baseline, so best.yaml keeps the baseline."
    if verdict == "stable" and document["speedup"]["outcome"] != "faster" and not is_baseline:
        return (
            "The baseline does not meet the constraints of the spec. This is the fastest configuration that does, at "
            f"{document['speedup']['ratio']:.2f} times the baseline's speed."
        )
    if verdict == "stable":
        return keeps if is_baseline else None
    if interrupted:
        return "Not confirmed: the search was interrupted. Run the same command to continue."
    missing = [check["detail"] or check["name"] for check in checks if not (check["passed"] or check["warns_only"])]
    why = "; ".join(missing) or "there was no time for confirming rounds, and a single run may be luck"
    if is_baseline:
        return _on_unconfirmed_baseline(checks, keeps if missing else "best.yaml keeps the baseline so far.", why)
    contradicted = next((check for check in checks if check["name"] == SOAK_THROUGHPUT and not check["passed"]), None)
    if contradicted:
        slower = " Training slows down after its beginning, most often because of the loader."
        because = slower if float(contradicted["value"]) < 1 else ""
        return (
            f"Not confirmed: {why}.{because} The throughput in best.yaml and the speed-up are those "
            "of the long run (soak)."
        )
    return f"Not confirmed: {why}. Run the same command with a larger --budget before you rely on it."


def _on_unconfirmed_baseline(checks: Sequence[dict[str, Any]], keeps: str, why: str) -> str:
    soak = next((check for check in checks if check["name"] == "soak"), None)
    if soak and soak["value"] and not soak["passed"] and not soak["detail"].startswith(BUDGET_ENDED):
        return (
            f"{keeps} Not confirmed: your training fails with the baseline settings, after {soak['value']:,.0f} steps: "
            f"{soak['detail']}. Fix that before you train for long."
        )
    growing = next((check for check in checks if check["name"] == "memory_growth" and not check["passed"]), None)
    if growing and not growing["warns_only"]:
        return (
            f"{keeps} Not confirmed: memory grows with the baseline settings, {growing['detail']}, and a long training "
            "may run out of it. Find what keeps it: tensors with their graph, a growing list or cache, in the model or "
            "in the data set."
        )
    return f"{keeps} Not confirmed: {why}. Run the same command with a larger --budget to continue."


def _on_cold_baseline(document: dict[str, Any], records: Sequence[TrialRecord]) -> str | None:
    """Where all that it was compared by is its first run."""
    again = (Purpose.REPEAT, Purpose.CONFIRM)
    if document["config"] == document["baseline"]["config"] or document["speedup"].get("pairs"):
        return None
    if any(record.purpose in again and is_ok(record) for record in records):
        return None
    return (
        "The baseline ran cold: it ran once, before all others, and read files from disk that they found in memory. So "
        "the speed-up may be lower."
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
        "mean of each. So the tokens of short micro-batches weigh more. Return (summed_loss, count) instead: the sum "
        "and the number of its terms."
    )


def _on_batch_norm(config: TrainConfig, baseline: TrainConfig, facts: Facts) -> str | None:
    if not facts.workload.batch_norm or config.micro_batch_size >= baseline.micro_batch_size:
        return None
    return (
        f"The model has BatchNorm: its statistics now come from micro-batches of {config.micro_batch_size} samples "
        f"instead of {baseline.micro_batch_size}."
    )


def _on_stream(config: TrainConfig, facts: Facts) -> str | None:
    if not facts.workload.repeats_in_processes or config.num_workers < 2:
        return None
    return (
        f"The iterable data set gives each of the {config.num_workers} loader processes all of its samples, so that an "
        f"epoch holds every sample {config.num_workers} times. Divide the samples in its __iter__ with "
        "torch.utils.data.get_worker_info()."
    )


def _on_refused(refused: dict[str, Any], baseline: TrainConfig) -> str:
    """A faster configuration that was not emitted."""
    settings = _changes(TrainConfig.from_dict(refused["config"]), baseline)
    faults = "; ".join(f"{check['name']}: {check['detail'] or check['value']}" for check in refused["checks"])
    return f"Not chosen because it failed a stability test: {settings} ({faults})."


def _changes(config: TrainConfig, baseline: TrainConfig) -> str:
    """What differs from the baseline: `amp_dtype bf16, num_workers 2`."""
    return ", ".join(f"{knob} {own}" for knob, (own, _) in config.differences(baseline).items())


def _on_check(check: dict[str, Any]) -> str | None:
    """A gate that warned, or could not tell."""
    about = f": {check['detail']}" if check["detail"] else ""
    if not check["passed"] and check["warns_only"]:
        value, limit = (written(float(check[key])) for key in ("value", "limit"))
        return f"Warning: {check['name']} is {value}, the limit is {limit}{about}."
    if not check["conclusive"]:
        return f"The test {check['name']} was inconclusive{about}."
    return None


def _on_disturbances(document: dict[str, Any]) -> str | None:
    disturbed = document["measured"]["disturbed_blocks"] + document["baseline"]["disturbed_blocks"]
    if not disturbed:
        return None
    blocks = "1 timed block was" if disturbed == 1 else f"{disturbed} timed blocks were"
    return (
        f"{blocks} disturbed by other work on the machine or by throttling. Where possible, undisturbed blocks were "
        "used instead."
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
        return f"All {len(means)} ranks compute equally fast, within {_EVEN - 1:.0%}."
    return (
        f"Rank {slowest} ({devices[slowest]}) is the slowest: it computes for {1000 * means[slowest]:.3g} ms per step, "
        f"{means[slowest] / fastest - 1:.0%} longer than the fastest rank. All others wait for it."
    )


def _on_unreadable(records: Sequence[TrialRecord]) -> str | None:
    paths = sorted({path for record in records for path in record.result.unreadable_samples})
    if not paths:
        return None
    files = "1 image cannot" if len(paths) == 1 else f"{len(paths)} images cannot"
    return f"{files} be read; trials used the next one instead. Your own training may stop there. First: {paths[0]}"


def _on_failures(records: Sequence[TrialRecord], baseline: TrainConfig) -> str | None:
    broken = [record for record in records if record.result.status in ("failed", "crashed")]
    if not broken:
        return None
    first = broken[0]
    where = "in the confirmation" if first.purpose in (Purpose.CONFIRM, Purpose.SOAK) else "in the search"
    reason = first.result.failure.reason if first.result.failure else first.result.status
    trials = "1 trial" if len(broken) == 1 else f"{len(broken)} trials"
    settings = _changes(first.result.config, baseline) or "the baseline's settings"
    return f"{trials} failed {where}. The first one (trials/{first.number:04d}.json), with {settings}: {reason}"
