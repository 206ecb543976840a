"""The contract of all targets: a setting stands in the files or in the notes, and what they say is so."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from samples import ON_CPU, ON_CUDA, PLAIN, source

from autotune.config import KNOB_NAMES, RANK_KNOBS, TrainConfig
from autotune.errors import SpecError
from autotune.export import TARGETS, Source, Target, export
from autotune.export.notes import promise

OTHERS: dict[str, Any] = {
    "micro_batch_size": 16,
    "grad_accum_steps": 5,
    "amp_dtype": "bf16",
    "pin_memory": False,
    "num_workers": 3,
    "prefetch_factor": 7,
    "memory_format": "contiguous",
    "compile": "reduce-overhead",
    "fp32_precision": "ieee",
    "fused_optimizer": False,
    "activation_checkpointing": False,
    "num_threads": 5,
    "data_parallel": "fsdp",
    "bucket_cap_mb": 5,
    "gradient_as_bucket_view": True,
    "static_graph": True,
}
"""A value of each knob that is not that of ON_CUDA."""

TOGETHER = ON_CUDA.replace(
    world_size=4, data_parallel="ddp", bucket_cap_mb=25, gradient_as_bucket_view=False, static_graph=False
)

every_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
RENDERED = {
    "plain": source(PLAIN),
    "cpu": source(ON_CPU),
    "cuda": source(ON_CUDA, kind="cuda"),
    "lone": dataclasses.replace(source(ON_CUDA, kind="cuda"), spec=None),
}


def settings_in(files: dict[str, str]) -> str:
    """The files without what is said about them, and without the effective batch that data formats state."""
    text = "\n".join(files.values())
    text = re.sub(r'""".*?"""', "", text, flags=re.DOTALL)
    return "\n".join(line for line in text.splitlines() if not line.startswith("#") and "effective" not in line)


def expressed(target: Target, made_from: Source) -> set[str]:
    return {*target.expresses, *target.customs(made_from)}


def test_there_is_one_for_each_format_of_the_command_line() -> None:
    assert set(TARGETS) == {"yaml", "json", "torch", "timm", "transformers", "accelerate", "lightning", "deepspeed"}


@every_target
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "radam"])
def test_every_setting_is_in_the_files_or_in_the_notes(target: Target, kind: str, optimizer: str) -> None:
    training = {"optimizer": {"name": optimizer, "lr": 0.1}}
    made_from = source(ON_CPU if kind == "cpu" else ON_CUDA, kind=kind, training=training)
    notes = export(made_from, target.name).notes
    for knob in made_from.config.differences(TrainConfig()):
        named = any(re.search(rf"\b{knob}\b", note) for note in notes)
        assert named or knob in expressed(target, made_from), knob


@every_target
@pytest.mark.parametrize("knob", KNOB_NAMES)
def test_what_a_target_expresses_changes_its_files(target: Target, knob: str) -> None:
    plain = TOGETHER if knob in RANK_KNOBS else ON_CUDA
    changed = plain.replace(**{knob: OTHERS[knob]})
    before, after = (
        settings_in(dict(export(source(config, kind="cuda"), target.name).files)) for config in (plain, changed)
    )
    assert (before != after) == (knob in target.expresses)


@every_target
def test_of_several_processes_it_is_said_how_many_and_how(target: Target) -> None:
    made = export(source(TOGETHER, kind="cuda"), target.name)
    assert any("× 4 processes that train together" in line for line in made.about)
    for knob in RANK_KNOBS:
        assert knob in target.expresses or any(f"{knob}:" in note for note in made.notes)


@every_target
def test_a_custom_knob_that_a_target_expresses_changes_its_files(target: Target) -> None:
    changed = ON_CUDA.replace(custom=(("rate", 0.5),))
    before, after = (
        settings_in(dict(export(source(config, kind="cuda"), target.name).files)) for config in (ON_CUDA, changed)
    )
    assert (before != after) == ("rate" in target.customs(source(ON_CUDA)))


@every_target
def test_notes_name_the_argument_of_a_custom_knob_that_the_target_has_no_place_for(target: Target) -> None:
    search = {"custom": {"rate": {"values": [0.25], "arg": "data.args.rate"}}}
    made = export(source(ON_CPU, search=search, data={"factory": "mine:build"}), target.name)
    left = [note for note in made.notes if "data.args.rate" in note]
    assert bool(left) != ("0.25" in settings_in(dict(made.files)))


def test_the_promise_has_large_figures_in_full() -> None:
    fast = source()
    best = dataclasses.replace(fast.emitted.best, samples_per_s=33_114.0, samples_per_s_ci95=(26_340.0, 40_950.0))
    text = " ".join(promise(dataclasses.replace(fast, emitted=dataclasses.replace(fast.emitted, best=best))))
    assert "33,114 samples/s (95 % interval 26,340 to 40,950)" in text


@every_target
def test_the_promise_has_study_figures_and_effective_batch(target: Target) -> None:
    text = " ".join(export(source(), target.name).about)
    assert "from study mine; verdict: stable." in text
    assert "208 samples/s (95 % interval 190 to 230), 2.08 times the baseline's 100 (1.90 to 2.30)" in text
    assert "on a device with PyTorch 2.15.0+cu130" in text
    assert "Effective batch size: 16, that is 8 × 2" in text


@every_target
def test_a_baseline_that_stands_is_no_gain(target: Target) -> None:
    promise = " ".join(export(source(PLAIN, baseline=PLAIN), target.name).about)
    assert "with the baseline settings: nothing tested was reliably faster" in promise


@pytest.mark.parametrize("name", sorted(set(TARGETS) - {"json", "deepspeed"}))
def test_files_that_can_hold_comments_carry_promise_and_notes(name: str) -> None:
    made = export(source(verdict="unconfirmed"), name)
    said = [*made.about, *made.notes]
    for text in made.files.values():
        words = " ".join(text.replace("# ", " ").split())
        assert not [sentence for sentence in said if " ".join(sentence.split()) not in words]


@every_target
def test_an_unconfirmed_result_says_so_first(target: Target) -> None:
    assert export(source(verdict="unconfirmed"), target.name).notes[0].startswith("UNCONFIRMED: ")
    assert "UNCONFIRMED" not in " ".join(export(source(), target.name).notes)


@every_target
def test_another_effective_batch_has_its_learning_rate(target: Target) -> None:
    notes = " ".join(export(source(), target.name).notes)
    assert "from 4 to 16" in notes
    assert "by 4 (SGD, linear) or 2 (Adam, square root)" in notes
    same = source(baseline=PLAIN.replace(micro_batch_size=16))
    assert "(Adam)" not in " ".join(export(same, target.name).notes)


def test_data_says_what_another_effective_batch_does_to_the_learning_rate() -> None:
    (written,) = export(source(), "json").files.values()
    assert json.loads(written)["learning_rate_factor"] == {"linear": 4.0, "square_root": 2.0}


@every_target
def test_a_lone_result_is_enough_for_all_but_a_script(target: Target) -> None:
    if target.name == "torch":
        with pytest.raises(SpecError, match=r"give the study's folder, spec\.yaml included"):
            export(RENDERED["lone"], "torch")
    else:
        assert export(RENDERED["lone"], target.name).files


@every_target
@pytest.mark.parametrize("which", sorted(RENDERED))
def test_files_are_what_their_names_say(target: Target, which: str, tmp_path: Path) -> None:
    if (target.name, which) == ("torch", "lone"):
        pytest.skip("needs the study")
    for name, text in export(RENDERED[which], target.name).files.items():
        assert text.endswith("\n") and not text.endswith("\n\n")
        assert max(map(len, text.splitlines())) <= 120
        if name.endswith(".json"):
            json.loads(text)
        elif name.endswith(".yaml"):
            yaml.safe_load(text)
        elif name.endswith(".sh"):
            (tmp_path / name).write_text(text)
            subprocess.run(["sh", "-n", str(tmp_path / name)], check=True)
        else:
            compile(text, name, "exec")


@every_target
def test_python_is_as_a_formatter_would_leave_it(target: Target, tmp_path: Path) -> None:
    ruff = shutil.which("ruff")
    if ruff is None:
        pytest.skip("needs ruff")
    for which, made_from in RENDERED.items():
        if target.name == "torch" and which == "lone":
            continue
        for name, text in export(made_from, target.name).files.items():
            if name.endswith(".py"):
                (tmp_path / f"{which}_{name}").write_text(text)
    options = ["--isolated", "--line-length", "120"]
    for command in (["check", "--select", "E,F,I,W"], ["format", "--diff"]):
        done = subprocess.run([ruff, *command, *options, str(tmp_path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@every_target
def test_no_quote_or_backslash_of_a_name_breaks_a_file(target: Target) -> None:
    odd = source()
    environment = {**odd.emitted.environment, "device": 'a """quoted""" \\N device'}
    made = export(
        dataclasses.replace(odd, emitted=dataclasses.replace(odd.emitted, environment=environment)), target.name
    )
    for name, text in made.files.items():
        if name.endswith(".py"):
            compile(text, name, "exec")


@pytest.mark.parametrize(
    ("fused", "amp_dtype", "said"), [(True, "bf16", True), (True, "none", False), (False, "bf16", False)]
)
def test_lightning_refuses_to_clip_with_a_fused_optimizer(fused: bool, amp_dtype: Any, said: bool) -> None:
    config = PLAIN.replace(fused_optimizer=fused, amp_dtype=amp_dtype)
    notes = " ".join(export(source(config), "lightning").notes)
    assert ("leave fused=True out" in notes) is said
    unclipped = source(config, training={})
    assert "leave fused=True out" not in " ".join(export(unclipped, "lightning").notes)


@every_target
def test_a_function_of_the_users_that_makes_the_batches_is_called_or_named(target: Target) -> None:
    data = {"factory": "parts:build", "collate": "parts.batches:pad"}
    made_from = source(PLAIN, data=data, training={"optimizer": "parts:optimizer"}, search={})
    made = export(made_from, target.name)
    called = [text for text in made.files.values() if "from parts.batches import pad" in text]
    named = [note for note in made.notes if "parts.batches:pad" in note]
    assert (len(called), len(named)) == ((1, 0) if target.name == "torch" else (0, 1))
    lr = " ".join([*made.files.values(), *made.notes])
    assert "0.05" not in lr, "a learning rate that the factory was not given"
