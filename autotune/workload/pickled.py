"""A data set that `autotune.tune` was given as an object, for the processes of its trials."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any


def load(path: str, sha256: str) -> Any:
    """The data set in the file at `path`. Raises ValueError when it is not the one with that hash."""
    content = Path(path).read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path} has changed since the study began")
    return pickle.loads(content)
