"""Puts a failure of the user's model, data, loss or optimizer into words: which part of the spec, and the cause."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch

from autotune.config import KnobValue
from autotune.errors import AutotuneError, WorkloadError
from autotune.workload.user_code import at_user_line, said


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?` with the closest of `known`, to end a message with; empty when none is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


@contextmanager
def blaming(part: str) -> Iterator[None]:
    """Turn an exception into WorkloadError(`part` raised … (file:line)), with the exception as its cause.

    Running out of memory passes as it is: it is no mistake in the spec, and what comes next depends on its type.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, AutotuneError) or _is_out_of_memory(error):
            raise
        raise WorkloadError(f"{part} raised {type(error).__name__}: {said(error)}{at_user_line(error)}") from error


@contextmanager
def with_settings(values: Mapping[str, KnobValue]) -> Iterator[None]:
    """Name the spec's own knobs, and the values that were tried, in what goes wrong where they are arguments."""
    try:
        yield
    except WorkloadError as error:
        if not values:
            raise
        settings = ", ".join(f"{name} {json.dumps(value)}" for name, value in values.items())
        raise WorkloadError(f"{error} (with search.custom: {settings})") from error


def _is_out_of_memory(error: Exception) -> bool:
    # Beside torch's own class there are RuntimeErrors of many wordings; one that merely speaks of memory may pass too.
    texts = ("memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError | OSError) and any(text in str(error) for text in texts)
    )
