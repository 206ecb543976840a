"""The command line from Python: `search` for a spec, `tune` for callables.

Trials run in separate processes, so both work in a notebook and beside a running event loop. They block until the study
is done, as `autotune search` does, and write the same kind of study folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autotune.criterion import criterion_flaw
from autotune.emitted import STUDIES
from autotune.errors import AutotuneError, SpecError, StudyMismatch, WorkloadError
from autotune.importable import Named, PickledDataset, common_root
from autotune.records import SearchResult
from autotune.report.dashboard import noted
from autotune.search import Interrupted, Listener
from autotune.search import search as run_search
from autotune.search.ledger import read_origin
from autotune.search.runner import OnProgress, OnTrial
from autotune.spec import LoadedSpec, Spec, load_spec, parse_spec, spec_sha256, study_name
from autotune.store import StudyFolder
from autotune.wording import TUNE, in_python, python_errors

_IGNORE: Callable[[Any], None] = lambda _seen: None  # noqa: E731 - a default that says what it does


@python_errors()
def search(
    spec: str | Path | Spec | Mapping[str, Any],
    *,
    budget: str | None = None,
    device: str | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
    use_all: bool = False,
    progress: OnProgress = _IGNORE,
    on_trial: OnTrial = _IGNORE,
) -> SearchResult:
    """Run or resume the study of `spec`. Write its folder, which is `out` or `studies/NAME`.

    `spec`: a YAML file, a `Spec`, or a mapping with its values; the latter two resolve relative paths and factories
    from the current folder. `budget`, `device`: override the spec's. `progress` is called with a snapshot whenever
    something changes, `on_trial` with the record of every run that has ended. An exception that they raise ends the
    search; the same call resumes it. `fresh`: start over and keep an earlier study under a new name. `use_all`: spend
    the whole budget, even if more trials are unlikely to help.

    Raises SpecError with all problems of the spec, WorkloadError, StudyMismatch, NoStableConfiguration or
    EnvironmentFailure. Raises `autotune.search.Interrupted` on Ctrl-C, after the best so far has been written.
    """
    began_s = time.monotonic()
    _refuse_in_a_trial("search")
    loaded = _loaded(spec, budget, device)
    folder = StudyFolder(Path(out) if out is not None else STUDIES / loaded.spec.name)
    listener = Listener(on_progress=progress, on_trial=on_trial)
    return _run(loaded, folder, fresh=fresh, began_s=began_s, use_all=use_all, listener=listener)


@python_errors(TUNE)
def tune(
    model_fn: Callable[[], Any],
    dataset: Any,
    loss_fn: Callable[[Any, Any], Any],
    *,
    collate_fn: Callable[[Any], Any] | None = None,
    budget: str = "2m",
    name: str | None = None,
    training: Mapping[str, Any] | None = None,
    baseline: Mapping[str, Any] | None = None,
    search: Mapping[str, Any] | None = None,
    device: str | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
    use_all: bool = False,
    progress: OnProgress = _IGNORE,
    on_trial: OnTrial = _IGNORE,
) -> SearchResult:
    """Find the fastest stable way to train `model_fn()` on `dataset` with `loss_fn(model, batch)`, without a spec.

    Trials run in separate processes, which import your functions. So `model_fn` and `loss_fn` are functions or classes
    at the top level of a module, and a script calls `tune` under `if __name__ == "__main__":`. `dataset` is such a
    function too, or a data set that can be pickled. `collate_fn`, also a function, makes a batch of a list of samples.
    `training`, `baseline` and `search` are these sections of a spec: the optimizer, the starting point, what to vary.
    The other arguments are those of `autotune.search`. Raises SpecError for callables that another process cannot
    import.
    """
    began_s = time.monotonic()
    _refuse_in_a_trial("tune")
    if (flaw := criterion_flaw(loss_fn)) is not None:
        raise SpecError(f"loss_fn: {flaw}")
    named = {"model_fn": Named("model_fn", model_fn), "loss_fn": Named("loss_fn", loss_fn)}
    if collate_fn is not None:
        named["collate_fn"] = Named("collate_fn", collate_fn)
    pickled = None
    if callable(dataset) and not hasattr(dataset, "__getitem__"):
        named["dataset"] = Named("dataset", dataset)
    else:
        pickled = PickledDataset(dataset)
    root = common_root([*(each.root for each in named.values()), *(pickled.roots if pickled else ())])
    folder = Path(out) if out is not None else STUDIES / study_name(name or named["model_fn"].qualname)
    folder = _of_this_project(folder, root, is_given=bool(out or name), fresh=fresh)
    if pickled is None:
        data: dict[str, Any] = {"factory": named["dataset"].path}
    else:
        file = pickled.beside(folder)
        data = {"factory": "autotune.workload.pickled:load", "args": {"path": str(file), "sha256": pickled.sha256}}
    if "collate_fn" in named:
        data["collate"] = named["collate_fn"].path
    spec = {
        "name": folder.name,
        "model": {"factory": named["model_fn"].path},
        "data": data,
        "training": {**(training or {}), "loss": named["loss_fn"].path},
        "baseline": dict(baseline or {}),
        "search": dict(search or {}),
        "budget": budget,
    }
    loaded = _from_values(spec | ({"device": device} if device else {}), root)
    listener = Listener(on_progress=progress, on_trial=on_trial)
    with pickled.written(file) if pickled is not None else contextlib.nullcontext():
        study = StudyFolder(folder)
        return _run(loaded, study, fresh=fresh, began_s=began_s, use_all=use_all, listener=listener)


def _run(loaded: LoadedSpec, folder: StudyFolder, **options: Any) -> SearchResult:
    """Run the search. Messages name arguments of this interface in place of the command line's options."""
    try:
        with noted(folder):
            return _in_python(run_search(loaded, folder, **options))
    except Interrupted as interruption:
        interruption.result = interruption.result and _in_python(interruption.result)
        raise


def _in_python(result: SearchResult) -> SearchResult:
    return result.model_copy(update={"notes": tuple(map(in_python, result.notes))})


def _refuse_in_a_trial(name: str) -> None:
    """Raise WorkloadError in a trial's process: it imports the user's script, and with it this call."""
    running = getattr(sys.modules.get("__main__"), "__spec__", None)
    if running is not None and running.name == "autotune.trial.__main__":
        raise WorkloadError(
            f"autotune.{name} was called again when a trial imported your script; put the call under "
            'if __name__ == "__main__":'
        )


def _of_this_project(folder: Path, root: Path, *, is_given: bool, fresh: bool) -> Path:
    """`folder`; or another one next to it, if `folder` holds a study of functions with the same names from another
    place.

    Raises StudyMismatch if the caller named the folder (`is_given`) and does not start over (`fresh`).
    """
    try:
        origin = read_origin(StudyFolder(folder)) if StudyFolder(folder).has_records() else root
    except AutotuneError:  # said by the search
        return folder
    if origin.resolve() == root.resolve() or (is_given and fresh):
        return folder
    if is_given:
        raise StudyMismatch(
            f"{folder} holds a study of functions in {origin}; give another name= or out=, or fresh=True if they "
            "have moved (the old study is kept)"
        )
    return folder.with_name(f"{folder.name}-{hashlib.sha256(bytes(root.resolve())).hexdigest()[:6]}")


def _loaded(spec: str | Path | Spec | Mapping[str, Any], budget: str | None, device: str | None) -> LoadedSpec:
    if isinstance(spec, str | Path):
        return load_spec(spec, budget=budget, device=device)
    values = spec.model_dump(mode="json", exclude_none=True) if isinstance(spec, Spec) else dict(spec)
    options = {"budget": budget, "device": device}
    return _from_values(values | {key: value for key, value in options.items() if value is not None}, Path.cwd())


def _from_values(values: Mapping[str, Any], folder: Path) -> LoadedSpec:
    spec = parse_spec(values, folder)
    return LoadedSpec(spec, folder, spec_sha256(spec))
