"""Caches what is computed from a record: records never change."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import TypeVar

from autotune.records.base import Record

R = TypeVar("R", bound=Record)
T = TypeVar("T")


def once_for_each(function: Callable[[R], T]) -> Callable[[R], T]:
    """`function` with a cache: its value for a record is kept as long as the record exists."""
    known: dict[int, tuple[weakref.ref[R], T]] = {}

    @functools.wraps(function)
    def remembering(record: R) -> T:
        number = id(record)
        if number not in known:
            known[number] = weakref.ref(record, lambda _: known.pop(number, None)), function(record)
        return known[number][1]

    return remembering
