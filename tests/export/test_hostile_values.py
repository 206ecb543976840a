"""Results travel between people: wherever a value stands, it ends up as no code in an export."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import ON_CPU, ON_CUDA, PLAIN
from support.hostile import HOSTILE, HOSTILE_TEXT, MARK, PAYLOADS, changed, leaves
from test_written_words import TIMM_FLAGS

from autotune.emitted import Emitted
from autotune.errors import AutotuneError, SpecError
from autotune.export import TARGETS, Source, export, read_source
from autotune.export.document import document as plain_document
from autotune.export.quoting import comment, docstring, literal, word
from autotune.spec import parse_spec

SPECS: dict[str, dict[str, Any]] = {
    "generated": {
        "model": {"timm": "resnet18", "args": {"drop_rate": 0.5, "act": "relu"}},
        "data": {"synthetic": {"image_size": 32, "samples": 64, "classes": 4, "seed": 1, "storage": "memory"}},
        "training": {"optimizer": {"name": "adamw", "lr": 0.001, "weight_decay": 0.1, "betas": [0.9, 0.99]}},
    },
    "folder": {
        "model": {"timm": "resnet18"},
        "data": {"image_folder": {"path": "/images", "image_size": 32}},
        "training": {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}, "clip_grad_norm": 1.0, "seed": 3},
    },
    "named": {
        "model": {"timm": "resnet18", "args": {"num_classes": 3}},
        "data": {"timm": {"name": "torch/cifar10", "root": "/data", "split": "train", "args": {"download": True}}},
        "device": "cuda:1",
    },
    "own": {
        "model": {"factory": "parts.models:Build.model", "args": {"width": [1, 2]}},
        "data": {"factory": "parts:build", "args": {"root": "~/data"}},
        "training": {"loss": "parts:loss", "optimizer": {"name": "radam", "lr": 0.1}},
    },
    "own throughout": {
        "model": {"factory": "parts.models:Build.model"},
        "data": {"factory": "parts:build", "collate": "parts.data:Batches.pad"},
        "training": {"loss": "parts:loss", "optimizer": {"factory": "parts:optimizer", "lr": 0.1, "layers": ["a"]}},
    },
}
COMMON = {"budget": "2m", "search": {"custom": {"rate": {"values": [0.0, 0.25], "arg": "model.args.drop_rate"}}}}
RESULTS: dict[str, dict[str, Any]] = {
    kind: {
        "format": 1,
        "study": "mine",
        "config": config.to_dict(),
        "measured": {"samples_per_s": 208.0, "samples_per_s_ci95": [190.0, 230.0]},
        "baseline": {"config": PLAIN.to_dict(), "samples_per_s": 100.0, "samples_per_s_ci95": None},
        "speedup": {"ratio": 2.08, "ci95": [1.9, 2.3]},
        "stability": {"verdict": "unconfirmed"},
        "environment": {"device": "a device", "device_kind": kind, "torch": "2.15.0", "autotune": "0.1.0", "cpu": "x"},
    }
    for kind, config in {"cpu": ON_CPU, "cuda": ON_CUDA}.items()
}


@st.composite
def hostile_documents(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A result and its spec, a value or two of them hostile."""
    documents = {
        "result": RESULTS[draw(st.sampled_from(sorted(RESULTS)))],
        "spec": SPECS[draw(st.sampled_from(sorted(SPECS)))] | COMMON,
    }
    for _ in range(draw(st.integers(0, 2))):
        which = draw(st.sampled_from(sorted(documents)))
        path = draw(st.sampled_from(list(leaves(documents[which]))))
        key = draw(st.none() | HOSTILE_TEXT)
        documents[which] = changed(documents[which], path, draw(HOSTILE), key)
    return documents["result"], documents["spec"]


def read(folder: Path, result: Any, spec: Any) -> Source | None:
    """What an export is made from; None where reading refuses it, in words."""
    (folder / "best.yaml").write_text(yaml.safe_dump(result))
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    try:
        return read_source(folder)
    except AutotuneError as refusal:
        problems = getattr(refusal, "problems", (str(refusal),))
        assert all(len(problem.splitlines()) == 1 for problem in problems), "a line for each"
        return None


def names_in(text: str) -> Iterator[str]:
    """All that is not a literal or a comment in Python source."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Constant):
            yield from (value for _, value in ast.iter_fields(node) if isinstance(value, str))


def is_inert(name: str, text: str, source: Source) -> bool:
    """Whether nothing hostile in a file is more than text."""
    if name.endswith(".py"):
        compile(text, name, "exec")
        return not any(MARK in found or found in ("__import__", "system", "eval") for found in names_in(text))
    if name == "autotune.yaml":
        return bool(yaml.safe_load(text) == plain_document(source))
    if name == "autotune.json":
        return bool(json.loads(text) == plain_document(source))
    if name.endswith((".yaml", ".json")):
        return MARK not in str(yaml.safe_load(text))
    return all(is_expected(command) for command in commands_in(text))


def commands_in(text: str) -> Iterator[str]:
    """The commands of a shell script: what no quote and no backslash continues on the next line."""
    quote, line = "", ""
    for character in text.replace("\\\n", " "):
        if not line.startswith("#") and character in "\"'":
            quote = "" if quote == character else quote or character
        if character == "\n" and not quote:
            if not line.startswith("#"):
                yield line
            line = ""
        else:
            line += character
    assert not line, "the last command ends"


def is_expected(command: str) -> bool:
    if re.fullmatch(r"export OMP_NUM_THREADS=\d+", command):
        return True
    words = list(shlex.shlex(command, posix=True, punctuation_chars=True))
    flags = {each for each in shlex.split(command) if each.startswith("-")}
    return words[:2] == ["exec", "python"] and not set(";&|()<>") & set(words) and flags <= TIMM_FLAGS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@given(documents=hostile_documents(), folders=st.tuples(*[st.none() | HOSTILE_TEXT] * 2))
@settings(max_examples=int(os.environ.get("HOSTILE_EXAMPLES", "150")), deadline=None)
def test_no_value_ends_up_as_code(documents: tuple[Any, Any], folders: tuple[str | None, ...], folder: Path) -> None:
    found = read(folder, *documents)
    if found is None:
        return
    own, data = folders
    source = dataclasses.replace(found, folder=None if own is None else Path(own), data_folder=data)
    for target in TARGETS:
        try:
            made = export(source, target)
        except SpecError:
            continue
        for name, text in made.files.items():
            text.encode()
            assert is_inert(name, text, source), text
        assert all(line.isprintable() for line in (*made.about, *made.notes))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_shell_runs_train_py_and_nothing_else(payload: str, tmp_path: Path) -> None:
    values = {"model": {"timm": f"a{payload}", "args": {"k": payload}}, "data": {"synthetic": {}}, "budget": "2m"}
    emitted = Emitted.from_document(RESULTS["cpu"] | {"config": PLAIN.to_dict()})
    emitted = dataclasses.replace(emitted, study=payload, environment={**emitted.environment, "device": payload})
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/given\n')
    python.chmod(0o755)
    try:
        text = export(Source(emitted=emitted, spec=parse_spec(values, "/")), "timm").files["train_timm.sh"]
    except SpecError as refusal:
        assert "cannot be given on a command line" in str(refusal)
        return
    (tmp_path / "train_timm.sh").write_text(text)
    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    subprocess.run(["sh", "train_timm.sh", "last"], cwd=tmp_path, env=environment, check=True)
    given_words = (tmp_path / "given").read_text().splitlines()
    assert (given_words[0], given_words[-1]) == ("train.py", "last")
    assert f"a{payload}" in given_words and f"k={payload}" in given_words
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "given", "train_timm.sh"}


@given(HOSTILE_TEXT | st.text())
def test_a_literal_is_one_and_has_the_value(text: str) -> None:
    written = literal({text: [text, 1.5, None, True]})
    assert ast.literal_eval(written) == {text: [text, 1.5, None, True]}
    assert written.isprintable()


@given(HOSTILE_TEXT | st.text())
def test_a_comment_is_a_line_in_every_language(text: str) -> None:
    written = comment([text, "after"])
    assert len(written.splitlines()) == 2
    assert yaml.safe_load(written + "key: value\n") == {"key": "value"}
    assert [type(node) for node in ast.parse(written + "key = 1\n").body] == [ast.Assign]
    (only,) = ast.parse(docstring(text, [text])).body
    assert isinstance(only, ast.Expr) and isinstance(only.value, ast.Constant)


@pytest.mark.parametrize("value", [b"a", {1}, float("nan"), float("inf"), 1j, object()])
def test_what_has_no_literal_is_refused(value: Any) -> None:
    with pytest.raises(SpecError, match="cannot be written as Python"):
        literal([value])


@pytest.mark.parametrize("value", ["--resume=x", "-x", "a\nb", "a\x00b", "\u2028"])
def test_what_no_command_line_takes_is_refused(value: str) -> None:
    with pytest.raises(SpecError, match="cannot be given on a command line"):
        word(value)
