"""Which knobs distinguish the fast trials from the others: Optuna's PED-ANOVA over the trials of the search."""

from __future__ import annotations

import warnings
from functools import lru_cache

from autotune.report.reading import Reading
from autotune.search.figures import samples_per_s

FEWEST_TRIALS = 12
"""Fewest measured trials: with fewer, the fastest quarter is too small a sample."""
FAST_SHARE = 0.25


@lru_cache(maxsize=2)
def importances(reading: Reading) -> dict[str, float]:
    """Knob → its share, the largest first; empty if there are too few trials, or no knob that varies.

    The study is rebuilt from the records, so that the database is not touched.
    """
    if len(reading.measured) < FEWEST_TRIALS or not reading.space.dimensions:
        return {}
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        evaluator = PedAnovaImportanceEvaluator(target_quantile=FAST_SHARE)
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        study.add_trials(
            [
                optuna.create_trial(
                    params=dict(reading.space.indices_of(record.result.config)),
                    distributions=dict(reading.space.distributions),
                    value=samples_per_s(record),
                )
                for record in reading.measured
            ]
        )
        found = get_param_importances(study, evaluator=evaluator)
    return dict(sorted(found.items(), key=lambda entry: entry[1], reverse=True))
