"""Files that somebody else may have written: read as what they are, or refused in a line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hostile import HOSTILE, HOSTILE_TEXT, changed, leaves
from support.results import result
from support.screen import drawn
from support.studies import finished

from autotune.best_yaml import Document
from autotune.emitted import read_emitted
from autotune.errors import AutotuneError, EnvironmentFailure
from autotune.report.result import result_view
from autotune.store import StudyFolder
from autotune.untrusted import check, read_yaml

PLACES = list(leaves(result()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    return StudyFolder(tmp_path_factory.mktemp("study"))


def refused(message: str) -> None:
    assert len(message.splitlines()) == 1 and message.isprintable()


@given(where=st.sampled_from(PLACES), value=HOSTILE, key=st.none() | HOSTILE_TEXT)
@settings(max_examples=int(os.environ.get("HOSTILE_EXAMPLES", "150")), deadline=None)
def test_a_hostile_result_is_shown_or_refused_in_a_line(folder: StudyFolder, where: Any, value: Any, key: Any) -> None:
    folder.best.write_text(yaml.safe_dump(changed(result(), where, value, key)))
    try:
        read_emitted(folder.path)
    except AutotuneError as refusal:
        refused(str(refusal))
    try:
        document = folder.read_best()
    except AutotuneError as refusal:
        refused(str(refusal))
        return
    assert document is not None
    assert "\x1b" not in drawn(result_view(document, folder=folder.path, verbose=True))


@given(st.binary(max_size=200) | st.text("[]{}:,&*!%-?|>'\"# \n\tab1.~<", max_size=200).map(str.encode))
@settings(deadline=None)
def test_any_bytes_are_yaml_or_refused_in_a_line(folder: StudyFolder, content: bytes) -> None:
    folder.best.write_bytes(content)
    try:
        read_yaml(folder.best)
    except ValueError as refusal:
        assert len(str(refusal).splitlines()) == 1


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (BOMB, "line 2: an alias"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: " + "{b: " * 5000, "nested too deeply"),
        (f"a: 0x{'f' * 5000}", "line 1: a number of more than 300 digits"),
        (f"a: {'9' * 5000}", "line 1: a number of more than 300 digits"),
        ("a: .inf", "line 1: a number that is not finite"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: the type !!python/object/apply:os.system"),
        ("a: !!binary aGk=", "line 1: the type !!binary"),
        ("a: !own {b: 1}", "line 1: the type !own"),
        ("1: a", "a key that is not text"),
        ("- a", "it holds a list, not a mapping"),
        ("", "it holds a NoneType, not a mapping"),
    ],
)
def test_tricks_of_yaml_are_refused(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "best.yaml").write_text(content)
    with pytest.raises(ValueError) as caught:
        read_yaml(tmp_path / "best.yaml")
    assert str(caught.value).startswith(problem)
    with pytest.raises(EnvironmentFailure, match="is damaged"):
        StudyFolder(tmp_path).read_best()


def test_a_date_is_text(tmp_path: Path) -> None:
    (tmp_path / "best.yaml").write_text("created: 2026-01-31T12:00:00Z\nb: [1, 1.5, true, null, x]")
    assert read_yaml(tmp_path / "best.yaml") == {"created": "2026-01-31T12:00:00Z", "b": [1, 1.5, True, None, "x"]}


@pytest.mark.parametrize(
    ("where", "value", "problem"),
    [
        (
            ("environment", "device_kind"),
            "cuda.x",
            "environment.device_kind must be 'cpu', 'cuda', 'mps' or 'xpu', not",
        ),
        (("study",), "a\u2028b", "study must be letters, digits, "),
        (("measured", "samples_per_s"), 0, "measured.samples_per_s must be more than 0"),
        (("speedup", "ci95"), [1.0], "speedup.ci95 "),
        (("stability", "verdict"), "perfect", "stability.verdict must be 'stable' or 'unconfirmed', not 'perfect'"),
        (("stability", "refused", 0, "config", "compile"), "x", "stability.refused.0.config.compile must be 'none', "),
        (("search",), [1], "search must be a mapping, not a list"),
        (
            ("search", "strategy", "learned", "facts"),
            ["a\x1b[2J"],
            "search.strategy.learned.facts.0 must be one line of printable",
        ),
    ],
)
def test_a_refusal_names_the_key_and_what_is_allowed(where: Any, value: Any, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        check(Document, changed(result(), where, value, None))
    assert str(caught.value).startswith(problem)
    refused(str(caught.value))


@pytest.mark.parametrize("kind", ["gpu by auto", "refused", "baseline"])
def test_all_that_a_search_writes_is_checked(kind: str, tmp_path: Path) -> None:
    """A key that `best.yaml` gets has its type in `autotune.best_yaml`."""
    document = finished(kind, tmp_path).document
    known = check(Document, document).model_dump(exclude_unset=True)
    assert set(leaves(document)) == set(leaves(known))
