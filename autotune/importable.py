"""Makes the arguments of `autotune.tune` available to trial processes: callables by the names under which they can be
imported, a data set as a file."""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from autotune.errors import SpecError, StudyMismatch
from autotune.store import write_atomically

_MOST_SHOWN = 120
"""Longest excerpt of an argument in a message."""


class Named:
    """A callable with the name under which another process can import it. Raises SpecError if there is no such name."""

    def __init__(self, argument: str, found: Any) -> None:
        self.qualname: str = getattr(found, "__qualname__", "")
        module = sys.modules.get(getattr(found, "__module__", None) or "")
        if module is None or not self.qualname or "<" in self.qualname:
            raise SpecError(f"{argument}: {_flaw(found)}")
        self.module_name, self.root = _importable(argument, module)
        self.path = f"{self.module_name}:{self.qualname}"


def _flaw(found: Any) -> str:
    if not callable(found):
        return f"give a function, not {_shown(found)}"
    if hasattr(found, "named_parameters"):
        return f"give a function that builds the model, not a {type(found).__name__}: each trial builds its own"
    return f"{_shown(found)} is not defined at the top level of a module, so trials cannot import it"


def _shown(found: Any) -> str:
    text = " ".join(repr(found).split())
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _importable(argument: str, module: ModuleType) -> tuple[str, Path | None]:
    """The module's name, and the folder to import it from; None if any process finds it."""
    file = getattr(module, "__file__", None)
    path = Path(file or "")
    if file is None or not path.is_file():
        where = "this session" if module.__name__ == "__main__" else module.__name__
        raise SpecError(
            f"{argument}: it is defined in {where}, which trials cannot import; write it into a .py file and import it "
            "from there"
        )
    path = path.resolve()
    if module.__name__ == "__main__":
        return path.stem, path.parent
    depth = module.__name__.count(".") + (path.name == "__init__.py")
    root = path.parents[depth]
    installed = any(part in ("site-packages", "dist-packages") for part in root.parts)
    return module.__name__, None if installed else root


def common_root(roots: Iterable[Path | None]) -> Path:
    """The folder from which all are imported; the current folder if any process finds them."""
    different = {root for root in roots if root is not None}
    if len(different) > 1:
        places = ", ".join(sorted(map(str, different)))
        raise SpecError(
            f"model_fn, dataset, loss_fn and collate_fn are in different folders ({places}); put them into one folder"
        )
    return next(iter(different), Path.cwd())


class PickledDataset:
    """A data set that was given as an object. Raises SpecError if it cannot be passed to another process."""

    def __init__(self, dataset: Any) -> None:
        if type(dataset).__module__.startswith("torch.utils.data.dataloader"):
            raise SpecError("dataset: give the data set, not a DataLoader: loading is searched")
        if isinstance(dataset, str | Path):
            raise SpecError(f"dataset: give a data set, or a function that builds it, not {_shown(dataset)}")
        content = io.BytesIO()
        pickler = _ForTrials(content)
        try:
            pickler.dump(dataset)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise SpecError(
                f"dataset: it cannot be pickled ({error}); give a function that builds it, at the top level of a module"
            ) from error
        self._content = content.getvalue()
        self.roots = pickler.roots
        self.sha256 = hashlib.sha256(self._content).hexdigest()

    def beside(self, folder: Path) -> Path:
        """The file for trials of the study in `folder`. Its name contains a part of the hash, so that the file of an
        earlier study of that name stays unchanged."""
        return (folder.parent / f"{folder.name}.dataset-{self.sha256[:8]}.pkl").absolute()

    @contextlib.contextmanager
    def written(self, path: Path) -> Iterator[None]:
        """Write the data set to `path`, and remove it again if the study there is another one."""
        is_new = not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self._content)
        try:
            yield
        except StudyMismatch:
            if is_new:
                path.unlink(missing_ok=True)
            raise


class _ForTrials(pickle.Pickler):
    """Pickles classes and functions of the running script under the module name by which trials import it."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.roots: set[Path | None] = set()

    def reducer_override(self, found: Any) -> Any:
        if not isinstance(found, type | FunctionType) or found.__module__ != "__main__":
            return NotImplemented
        named = Named("dataset", found)
        self.roots.add(named.root)
        return pkgutil.resolve_name, (named.path,)
