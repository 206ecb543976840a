"""What users' code raises before there is a trial: an error of the workload, never of the process that runs it."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

from autotune.errors import AutotuneError, NoStableConfiguration, WorkloadError
from autotune.records import TrialStatus
from autotune.trial.failure import classify, describe


@contextlib.contextmanager
def told_as_problem(doing: str) -> Iterator[None]:
    """Whatever is raised inside becomes a WorkloadError of `doing`, KeyboardInterrupt and SystemExit included; running
    out of memory a NoStableConfiguration. The traceback is printed, for the log."""
    try:
        yield
    except AutotuneError:
        raise
    except BaseException as error:
        with contextlib.suppress(Exception):  # an exception of the user's own may refuse to be printed
            traceback.print_exception(error)
        message = f"{doing} raised {describe(error).reason}"
        kind = NoStableConfiguration if classify(error) is TrialStatus.OOM else WorkloadError
        raise kind(message) from error
