"""Errors and notes in the words of the Python API. The core says what the command line's options are called; here, and
nowhere else, that becomes the name of an argument."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping

from autotune.errors import AutotuneError, SpecError

OPTIONS = {
    "fresh": "fresh=True",
    "use-all": "use_all=True",
    "out": "out=",
    "budget": "budget",
    "device": "device=",
    "storage": "storage.yaml",
}
"""Option of `autotune search` → what it is from Python. A study on a server is known by its `storage.yaml` there."""
_OPTION = re.compile(rf"(?<![\w-])--({'|'.join(OPTIONS)})(?![\w-])")
_SET = re.compile(r"--set (\w+)='([^']*)'")
_PHRASES = {"Run the same command": "Make the same call", "run the same command": "make the same call"}

TUNE = {
    "model.factory": "model_fn",
    "data.factory": "dataset",
    "data.collate": "collate_fn",
    "data": "dataset",
    "training.loss": "loss_fn",
    "autotune.workload.pickled:load": "reading it back",
}
"""Path in the spec that `autotune.tune` makes → its argument."""
_PATH = re.compile(r"(?m)^(?:spec: )?((?:[a-z_]+)(?:\.\w+)*)(?=: )")


def in_python(message: str, arguments: Mapping[str, str] = {}) -> str:
    """`message` with arguments in place of options, and of the paths that `arguments` names."""
    message = _OPTION.sub(lambda found: OPTIONS[found[1]], message)
    message = _SET.sub(r"\1: \2", message)
    for phrase, instead in _PHRASES.items():
        message = message.replace(phrase, instead)
    if not arguments:
        return message
    message = _PATH.sub(lambda found: arguments.get(found[1], found[1]), message)
    return message.replace("autotune.workload.pickled:load", arguments["autotune.workload.pickled:load"])


@contextlib.contextmanager
def python_errors(arguments: Mapping[str, str] = {}) -> Iterator[None]:
    """Every error of autotune that leaves this block names arguments, not options."""
    try:
        yield
    except SpecError as error:
        error.problems = tuple(dict.fromkeys(in_python(problem, arguments) for problem in error.problems))
        error.args = ("\n".join(error.problems),)
        raise
    except AutotuneError as error:
        error.args = (in_python(str(error), arguments),)
        raise
