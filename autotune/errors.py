"""Every error that autotune raises on purpose, with its exit code; the names show what the reader has to fix.

    AutotuneError
    ├── SpecError              2    fix the YAML or the command line
    │   └── WorkloadError      2    fix the model, data or loss that the spec names
    ├── StudyMismatch          2    the folder holds another study: `--fresh` or `--out`
    ├── NoStableConfiguration  3    not even the baseline trains: fix it, or raise the budget
    └── EnvironmentFailure     4    fix the machine: device gone, disk full, folder not writable

Anything else that escapes is a bug in autotune. A trial that fails is none of these: it is data (`TrialResult`).
"""

from __future__ import annotations

from collections.abc import Sequence


class AutotuneError(Exception):
    """Base of all errors that autotune raises on purpose; `exit_code` is the exit code of the command line."""

    exit_code = 1


class SpecError(AutotuneError):
    """The spec or the command line is wrong. `problems` holds one line each, all of them at once."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class WorkloadError(SpecError):
    """The model, data, loss or optimizer that the spec names cannot be built."""


class StudyMismatch(AutotuneError):
    """The study folder holds a study of another spec, space or machine."""

    exit_code = 2


class NoStableConfiguration(AutotuneError):
    """Not even the baseline trains inside the budget."""

    exit_code = 3


class EnvironmentFailure(AutotuneError):
    """The machine fails, not the workload: device gone, disk full, folder not writable."""

    exit_code = 4
