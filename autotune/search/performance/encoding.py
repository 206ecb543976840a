"""Configurations as the numbers that the performance model computes with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from autotune.config import KnobValue, TrainConfig
from autotune.knobs import KNOBS, Knob
from autotune.records import Facts
from autotune.search.performance.process import Array, Rows
from autotune.search.space import Dimension, Space

_APART = ("micro_batch_size", "grad_accum_steps", "prefetch_factor")
"""Knobs that are no part of a cell: what they do is written down, not learnt."""
_DOUBT_OF_CUSTOM = 0.3
"""About a knob that only its user knows."""
_NEXT_TO_NOTHING = 0.02
"""Doubt about a knob's effect on memory, up to which it is taken to have none."""
_KNEE = 16.0
"""Micro-batch size at which half of a step's time does not depend on the batch, as first guess."""
_FEEDING_DOUBT = 0.02
"""About what loader processes do to a step that an accelerator computes: its host thread finds a core of its own."""
_FED_ALIKE = 0.97
"""Correlation of what a step that an accelerator computes takes beside any two numbers of loader processes."""
_BY_NAME = {knob.name: knob for knob in KNOBS}


class Encoding:
    """Turns the configurations of one space into rows, each of them once."""

    def __init__(self, space: Space, facts: Facts) -> None:
        self._facts = facts
        self.world_size = space.baseline.world_size
        self._cell = [dimension for dimension in space.dimensions if dimension.knob not in _APART]
        self._codes = [{value: code for code, value in enumerate(dimension.values)} for dimension in self._cell]
        self._cache: dict[TrainConfig, tuple[tuple[int, ...], tuple[float, ...]]] = {}
        self.knobs = [dimension.knob for dimension in self._cell]
        self.alike = [_alike(dimension) for dimension in self._cell]
        apart = facts.device.kind != "cpu"
        self.alike_for_steps = [
            np.maximum(each, _FED_ALIKE) if apart and knob == "num_workers" else each
            for knob, each in zip(self.knobs, self.alike, strict=True)
        ]
        known: list[Knob | None] = [_BY_NAME.get(name) for name in self.knobs]
        self.memory_doubts = tuple(knob.memory_doubt if knob else _DOUBT_OF_CUSTOM for knob in known)
        self._weighty = [place for place, doubt in enumerate(self.memory_doubts) if doubt > _NEXT_TO_NOTHING]
        self.doubts = tuple(self._doubt(knob) for knob in known)

    def encode(self, configs: Sequence[TrainConfig]) -> Encoded:
        """What is needed to predict `configs`, a row for each."""
        rows = [self._row(config) for config in configs]
        codes = np.array([codes for codes, _ in rows], dtype=np.intp).reshape(len(rows), len(self._cell))
        numbers = np.array([numbers for _, numbers in rows], dtype=float).reshape(len(rows), 8)
        return Encoded(codes, numbers, self._weighty)

    def _doubt(self, knob: Knob | None) -> float:
        if knob is None:
            return _DOUBT_OF_CUSTOM
        apart = knob.name == "num_workers" and self._facts.device.kind != "cpu"
        return _FEEDING_DOUBT if apart else knob.doubt

    def _threads(self, config: TrainConfig) -> float:
        """Threads that compute for a step on the host: on a CPU the intra-op ones, else the one that feeds a device."""
        on_cpu = self._facts.device.kind == "cpu"
        return float(config.num_threads or self._facts.host.default_num_threads) if on_cpu else 1.0

    def _row(self, config: TrainConfig) -> tuple[tuple[int, ...], tuple[float, ...]]:
        row = self._cache.get(config)
        if row is None:
            codes = tuple(code.get(config.value(name), 0) for name, code in zip(self.knobs, self._codes, strict=True))
            expected = [knob.expected(config, self._facts) for knob in KNOBS]
            batch = config.micro_batch_size
            numbers = (
                float(batch),
                float(config.grad_accum_steps),
                float(config.num_workers),
                self._threads(config),
                math.fsum(each.time for each in expected) + math.log1p(_KNEE / batch),
                math.fsum(each.optimizer for each in expected),
                math.fsum(each.memory for each in expected),
                float(config.num_workers * (config.prefetch_factor or 0)),
            )
            row = self._cache[config] = codes, numbers
        return row


class Encoded:
    """Encoded configurations."""

    def __init__(self, codes: np.ndarray, numbers: Array, weighty: Sequence[int]) -> None:
        """`weighty`: which columns of `codes` are knobs that memory may depend on."""
        self._codes = codes
        self._numbers = numbers
        self._weighty = weighty
        self.batch, self.accum, self.workers, self.threads, self._time, self._optimizer, self._memory = numbers.T[:7]
        self.queue = numbers.T[7]
        """Batches that the loader's queue holds; 0 without loader processes."""

    def __len__(self) -> int:
        return len(self._numbers)

    def take(self, index: Sequence[int] | np.ndarray) -> Encoded:
        return Encoded(self._codes[index], self._numbers[index], self._weighty)

    def each(self) -> Iterator[Encoded]:
        """Every row, alone."""
        return (self.take([row]) for row in range(len(self)))

    def asks_for_no_less(self, than: Encoded) -> NDArray[np.bool_]:
        """For each row, next to the only one of `than`: no smaller, and alike in all that memory depends on.

        Loader processes use up the host's memory, not the device's.
        """
        alike = (self._codes[:, self._weighty] == than._codes[:, self._weighty]).all(axis=1)
        return np.asarray(alike & (self.batch >= than.batch) & (self.workers >= than.workers))

    def for_compute(self) -> Rows:
        """Rows for the logarithm of compute seconds per sample."""
        return Rows(self._codes, np.log2(self.batch), np.log2(self.accum), self._time)

    def for_optimizer(self) -> Rows:
        """Rows for the logarithm of the optimizer's seconds per step. They do not depend on the batch."""
        return Rows(self._codes, np.zeros(len(self)), np.zeros(len(self)), self._optimizer)

    def for_limit(self) -> Rows:
        """Rows for the violation of a constraint on measures. Nothing is expected of it in advance."""
        return Rows(self._codes, np.log2(self.batch), np.log2(self.accum), np.zeros(len(self)))

    def for_memory(self) -> Rows:
        """Rows for the logarithm of the bytes that each sample of a micro-batch adds; accumulation adds none."""
        return Rows(self._codes, np.log2(self.batch), np.zeros(len(self)), self._memory)


def _alike(dimension: Dimension) -> Array:
    """How much values of a knob behave alike. For numbers: the more, the nearer they are. For anything else: not at
    all.

    Our own numeric knobs are counts, which are near if their ratio is small. Of a user's numbers only the order is
    known.
    """
    numbers = [_number(value) for value in dimension.values]
    if any(number is None for number in numbers):
        return np.eye(len(dimension.values))
    values = np.array(numbers, dtype=float)
    places = np.log2(1 + values) if dimension.knob in _BY_NAME else np.argsort(np.argsort(values)).astype(float)
    return np.asarray(np.exp(-0.5 * (places[:, None] - places[None, :]) ** 2))


def _number(value: KnobValue) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
