"""Loads a data set that was passed to `autotune.tune` as an object, in the processes of trials."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any


def load(path: str, sha256: str) -> Any:
    """The data set in the file at `path`. Raises FileNotFoundError, or ValueError if its hash differs."""
    if not Path(path).exists():
        raise FileNotFoundError(
            f"the data set that autotune.tune wrote to {path} is gone; put it back, or beside the study's folder if "
            "that was moved, or call autotune.tune again"
        )
    content = Path(path).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path} has changed since the study began")
    return pickle.loads(content)
