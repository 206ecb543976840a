"""Turns what users' code raises before there is a trial into an error of the workload, never of the process that runs
it."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

from autotune.errors import AutotuneError, NoStableConfiguration, WorkloadError
from autotune.records import TrialStatus
from autotune.trial.failure import classify, describe


@contextlib.contextmanager
def told_as_problem(doing: str) -> Iterator[None]:
    """Turn any exception inside, KeyboardInterrupt and SystemExit included, into a WorkloadError that names `doing`;
    running out of memory becomes NoStableConfiguration. The traceback is printed, for the log."""
    try:
        yield
    except AutotuneError:
        raise
    except BaseException as error:
        with contextlib.suppress(Exception):  # printing an exception of the user's code may itself fail
            traceback.print_exception(error)
        message = f"{doing} raised {describe(error).reason}"
        kind = NoStableConfiguration if classify(error) is TrialStatus.OOM else WorkloadError
        raise kind(message) from error
