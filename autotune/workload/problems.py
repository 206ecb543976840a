"""Messages for failures of the user's model, data, loss or optimizer: the part of the spec, and the cause."""

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
    """`; did you mean …?` with the closest of `known`, for the end of a message; empty if none is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


@contextmanager
def blaming(part: str) -> Iterator[None]:
    """Turn an exception into WorkloadError(`part` raised … (file:line)), with the exception as its cause.

    Out-of-memory errors pass unchanged: they are no mistake in the spec, and the caller needs their type.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, AutotuneError) or _is_out_of_memory(error):
            raise
        raise WorkloadError(f"{part} raised {type(error).__name__}: {said(error)}{at_user_line(error)}") from error


@contextmanager
def with_settings(values: Mapping[str, KnobValue]) -> Iterator[None]:
    """Add the custom knobs, and the values that were tried, to errors that come from where they are arguments."""
    try:
        yield
    except WorkloadError as error:
        if not values:
            raise
        settings = ", ".join(f"{name} {json.dumps(value)}" for name, value in values.items())
        raise WorkloadError(f"{error} (with search.custom: {settings})") from error


def _is_out_of_memory(error: Exception) -> bool:
    # Torch has its own class, but also raises RuntimeErrors with many texts; one that only mentions memory may pass
    # too.
    texts = ("memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError | OSError) and any(text in str(error) for text in texts)
    )
