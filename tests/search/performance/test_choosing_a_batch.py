"""Several trials chosen at once: what is in flight, or chosen already, takes the doubt from what is like it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from search.performance.test_model import HERE, SPACE, model_of

from autotune.config import TrainConfig
from autotune.search.performance import PerformanceModel
from autotune.search.performance.batch import choose
from autotune.search.performance.process import Array
from autotune.search.performance.proposal import Proposer


def doubts_with(model: PerformanceModel, pending: list[TrainConfig], asked: list[TrainConfig]) -> Array:
    """About `asked`, as `choose` asks for a score with them."""
    heard: list[Array] = []

    def score(doubt: Array) -> Array:
        heard.append(doubt.copy())
        return np.zeros(len(doubt))

    encoded = model.encoding.encode(asked)
    choose(model, encoded, model.predict(encoded).doubt, score, model.encoding.encode(pending), 1)
    return heard[-1]


def test_trials_in_flight_take_the_doubt_from_their_like() -> None:
    model = model_of(HERE)
    bf16 = HERE.replace(amp_dtype="bf16")
    asked = [bf16.replace(micro_batch_size=64), HERE.replace(memory_format="channels_last")]
    alone, beside = doubts_with(model, [], asked), doubts_with(model, [bf16], asked)
    assert beside[0] < 0.5 * alone[0]
    assert beside[1] == pytest.approx(alone[1], rel=0.1)


def test_one_that_is_chosen_makes_its_like_less_promising() -> None:
    """By doubt alone the first two would be the same knob again."""
    model = model_of(HERE)
    bf16, last = HERE.replace(amp_dtype="bf16"), HERE.replace(memory_format="channels_last")
    encoded = model.encoding.encode([bf16, bf16.replace(micro_batch_size=32), last])
    first, second = choose(
        model, encoded, model.predict(encoded).doubt, lambda doubt: doubt, model.encoding.encode([]), 2
    )
    assert {first, second} & {0, 1}
    assert 2 in {first, second}


def test_what_must_not_be_chosen_is_not() -> None:
    model = model_of(HERE)
    encoded = model.encoding.encode(SPACE.configurations()[:5])
    score = np.array([-np.inf, 1.0, -np.inf, 2.0, -np.inf])
    nothing = model.encoding.encode([])
    assert choose(model, encoded, np.ones(5), lambda _: score.copy(), nothing, 4) == [3, 1]
    assert choose(model, encoded, np.ones(5), lambda _: np.full(5, -np.inf), nothing, 4) == []


def test_several_proposals_are_new_and_differ() -> None:
    model = model_of(HERE)
    pending = [HERE.replace(amp_dtype="bf16"), HERE.replace(micro_batch_size=64)]
    taken = {HERE, *pending}
    proposals = Proposer(SPACE, seed=0).propose(model, [HERE], taken, math.inf, pending, 8)
    assert len(set(proposals)) == 8
    assert not taken & set(proposals)
    assert proposals[:1] == Proposer(SPACE, seed=0).propose(model, [HERE], taken, math.inf, pending)
