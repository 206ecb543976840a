"""The contract of all targets: what they set is in their files, what they do not is in their notes."""

from __future__ import annotations

import dataclasses
import json
import shlex
from typing import Any

import pytest
import yaml
from export.sources import ON_CUDA, TUNED, source

from autotune.config import KNOB_NAMES, TrainConfig
from autotune.errors import SpecError
from autotune.export import TARGETS, Source, export

OTHERS: dict[str, Any] = {
    "micro_batch_size": 4,
    "grad_accum_steps": 5,
    "amp_dtype": "none",
    "pin_memory": False,
    "num_workers": 3,
    "prefetch_factor": 7,
    "memory_format": "contiguous",
    "compile": "none",
    "fp32_precision": None,
    "fused_optimizer": False,
    "activation_checkpointing": False,
}
"""A value of each knob that is not that of ON_CUDA."""
TIMM_FLAGS = {
    *("--model", "--batch-size", "--grad-accum-steps", "--workers", "--amp", "--amp-dtype", "--pin-mem"),
    *(
        "--channels-last",
        "--torchcompile",
        "--torchcompile-mode",
        "--grad-checkpointing",
        "--device",
        "--no-prefetcher",
    ),
}
"""Of train.py in huggingface/pytorch-image-models, as of timm 1.0.31."""


def text_of(made_from: Source, target: str) -> str:
    return "\n".join(export(made_from, target).files.values())


def test_there_are_the_targets_of_the_command_line() -> None:
    assert set(TARGETS) == {*("yaml", "json", "torch", "timm", "transformers", "accelerate", "lightning", "deepspeed")}


@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("config", [TUNED, ON_CUDA], ids=["cpu", "cuda"])
def test_every_setting_is_expressed_or_spoken_of(target: str, config: TrainConfig) -> None:
    kind = "cpu" if config is TUNED else "cuda"
    notes = " ".join(export(source(config, kind=kind), target).notes)
    for knob in (*config.differences(TrainConfig()), "micro_batch_size"):
        expressed = TARGETS[target].expresses & {knob, "custom" if knob not in KNOB_NAMES else knob}
        assert expressed or f"{target} does not set {knob}: " in notes, knob


@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("knob", sorted(OTHERS))
def test_what_a_target_claims_to_express_changes_its_files(target: str, knob: str) -> None:
    if knob not in TARGETS[target].expresses:
        return
    changed = dataclasses.replace(ON_CUDA, **{knob: OTHERS[knob]})
    if knob == "grad_accum_steps" or knob == "micro_batch_size":
        baseline = ON_CUDA.effective_batch_size
        files = [text_of(source(config, kind="cuda", baseline=baseline), target) for config in (ON_CUDA, changed)]
        without_header = [[line for line in text.splitlines() if "ffective" not in line] for text in files]
        assert without_header[0] != without_header[1]
    else:
        assert text_of(source(ON_CUDA, kind="cuda"), target) != text_of(source(changed, kind="cuda"), target)


@pytest.mark.parametrize("target", ["yaml", "torch", "timm", "transformers", "accelerate", "lightning"])
def test_files_say_where_they_come_from_and_what_was_measured(target: str) -> None:
    text = text_of(source(baseline=32), target)
    assert "study mine; verdict: stable" in text
    assert "208 samples/s (190 to 230), 2.08 times the baseline's (1.90 to 2.30)" in text
    assert "Effective batch size 16: 8 × 2 on each device, instead of 32: scale the learning rate by 0.71" in text
    assert "as before: the learning rate stays" in text_of(source(baseline=16), target)


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_an_unconfirmed_result_says_so_first(target: str) -> None:
    assert export(source(verdict="unconfirmed"), target).notes[0].startswith("UNCONFIRMED")


@pytest.mark.parametrize("target", sorted(set(TARGETS) - {"torch"}))
def test_a_lone_result_is_enough(target: str) -> None:
    assert export(dataclasses.replace(source(), spec=None), target).files


def test_a_script_needs_the_study() -> None:
    with pytest.raises(SpecError, match="give its folder"):
        export(dataclasses.replace(source(), spec=None), "torch")


@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("config", [TUNED, ON_CUDA, TrainConfig()], ids=["cpu", "cuda", "plain"])
def test_files_are_what_their_names_say(target: str, config: TrainConfig) -> None:
    for name, text in export(source(config, kind="cuda" if config is ON_CUDA else "cpu"), target).files.items():
        assert text.endswith("\n")
        if name.endswith(".py"):
            compile(text, name, "exec")
        elif name.endswith(".json"):
            json.loads(text)
        elif name.endswith(".yaml"):
            yaml.safe_load(text)


def test_timms_flags_are_timms() -> None:
    text = text_of(source(ON_CUDA, kind="cuda"), "timm") + text_of(source(), "timm")
    flags = {word for word in shlex.split(text, comments=True) if word.startswith("--")}
    assert flags <= TIMM_FLAGS
    assert {"--amp-dtype", "--torchcompile-mode", "--no-prefetcher"} <= flags


def test_deepspeed_is_told_no_total_batch() -> None:
    values = json.loads(text_of(source(), "deepspeed"))
    assert values == {
        "train_micro_batch_size_per_gpu": 8,
        "gradient_accumulation_steps": 2,
        "torch_autocast": {"enabled": True, "dtype": "bfloat16"},
        "gradient_clipping": 1.0,
    }


def test_accelerates_file_has_no_accumulation() -> None:
    files = export(source(), "accelerate").files
    assert "gradient_accumulation_steps" not in yaml.safe_load(files["accelerate_config.yaml"])
    assert "gradient_accumulation_steps=2" in files["accelerator.py"]


def test_a_script_holds_what_its_settings_need_and_no_more() -> None:
    plain = text_of(source(TrainConfig(micro_batch_size=8)), "torch")
    for word in ("autocast", "scaler", "channels_last", "GRAD_ACCUM", "compile", "pin_memory", "autotune.", "sys."):
        assert word not in plain.partition('"""\n')[2], word
    tuned = text_of(source(ON_CUDA, kind="cuda"), "torch")
    for word in ("GradScaler", "unscale_", "channels_last", "/ GRAD_ACCUM_STEPS", "non_blocking", "drop_rate=0.25"):
        assert word in tuned, word
    assert "model.compile(mode='max-autotune')" in tuned
