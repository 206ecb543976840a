"""Recorded tables as files: gzipped JSON, `studies/recorded/<device>-<name>.json.gz`, written completely or not at
all."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

from pydantic import ValidationError

from autotune.errors import SpecError
from autotune.records import Facts, Table
from autotune.store import speaking_of, write_atomically
from autotune.untrusted import problem, read_gzip

_RECORDED = Path("recorded")
_MOST_BYTES = 500_000_000
"""Size after decompression; a run takes about ten kilobytes."""


def table_path(studies: Path, facts: Facts, name: str) -> Path:
    """Path for the table of the study `name` on this machine."""
    device = facts.device
    cores = f" {facts.host.usable_cores} cores" if device.kind == "cpu" else ""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{device.name}{cores}".lower()).strip("-")
    return studies / _RECORDED / f"{slug}-{name}.json.gz"


def write_table(path: Path, table: Table) -> None:
    """Write `table`. Raises EnvironmentFailure if that fails."""
    document = json.dumps(table.model_dump(mode="json"), separators=(",", ":"))
    with speaking_of(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, gzip.compress(document.encode(), mtime=0))


def read_table(path: Path) -> Table:
    """Raises SpecError for a file that is missing, damaged, or not a table."""
    try:
        return Table.model_validate_json(read_gzip(path, _MOST_BYTES))
    except FileNotFoundError as error:
        raise SpecError(f"no table at {path}; `autotune sweep SPEC` records one") from error
    except ValidationError as error:
        raise SpecError(f"{path} is not a table that this version reads: {problem(error)}") from error
    except (OSError, ValueError) as error:
        raise SpecError(f"cannot read {path}: {error}; give a table that `autotune sweep` has written") from error
