"""What single targets write, against what their tools take."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest
import yaml
from samples import ON_CPU, ON_CUDA, PLAIN, source

from autotune.export import export

_TIMM = """
    -c --config --data-dir --dataset --train-split --val-split --train-num-samples --val-num-samples --dataset-download
    --class-map --input-img-mode --input-key --target-key --dataset-trust-remote-code --model --pretrained
    --pretrained-path --initial-checkpoint --resume --no-resume-opt --num-classes --gp --img-size --in-chans
    --input-size --crop-pct --mean --std --interpolation -b --batch-size -vb --validation-batch-size --channels-last
    --fuser --grad-accum-steps --grad-checkpointing --fast-norm --model-kwargs --head-init-scale --head-init-bias
    --torchcompile-mode --torchscript --torchcompile --device --amp --amp-dtype --model-dtype --no-ddp-bb
    --synchronize-step --local_rank --device-modules --opt --opt-eps --opt-betas --momentum --weight-decay --clip-grad
    --clip-mode --layer-decay --layer-decay-min-scale --layer-decay-no-opt-scale --opt-kwargs --sched
    --sched-on-updates --lr --lr-base --lr-base-size --lr-base-scale --warmup-lr --min-lr --epochs --no-aug
    --smoothing --seed --worker-seeding --log-interval -j --workers --pin-mem --no-prefetcher --output --experiment
"""
TIMM_FLAGS = frozenset(_TIMM.split())
"""Of train.py in huggingface/pytorch-image-models at v1.0.28, July 2026, unchanged at aa4b585 of August; PyPI's 1.0.31
comes without train.py. Left out: augmentation, schedules, EMA, distillation, NaFlex."""


def timm_words(**options: Any) -> list[str]:
    (text,) = export(source(**options), "timm").files.values()
    return shlex.split(text.replace("\\\n", ""), comments=True)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "radam"])
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_timms_flags_are_timms(kind: str, optimizer: str) -> None:
    training = {"optimizer": {"name": optimizer, "lr": 0.1, "weight_decay": 0.01}, "clip_grad_norm": 1.0}
    words = timm_words(config=ON_CPU if kind == "cpu" else ON_CUDA, kind=kind, training=training)
    assert {word for word in words if word.startswith("-")} <= TIMM_FLAGS
    assert words[-1] == "$@"


def test_timms_flags_say_the_settings() -> None:
    line = shlex.join(timm_words(config=ON_CUDA, kind="cuda"))
    for flags in (
        "-b 8 --grad-accum-steps 2",
        "--amp --amp-dtype float16",
        "--channels-last",
        "--torchcompile inductor --torchcompile-mode max-autotune",
        "--grad-checkpointing",
        "--opt-kwargs fused=True",
        "-j 2 --pin-mem",
        "--model resnet18 --num-classes 4 --model-kwargs drop_rate=0.25",
        "--opt adamw --lr 0.001 --weight-decay 0.01",
        "export OMP_NUM_THREADS=1",
    ):
        assert flags in line, flags
    plain = shlex.join(timm_words(config=PLAIN))
    assert "--amp" not in plain and "--torchcompile" not in plain
    assert "--device cpu" in plain and "-j 0 --no-prefetcher" in plain


def test_timms_sgd_is_that_without_nesterov() -> None:
    training = {"optimizer": {"name": "SGD", "lr": 0.1}}
    words = timm_words(config=PLAIN, training=training)
    assert words[words.index("--opt") + 1] == "momentum"
    assert words[words.index("--momentum") + 1] == "0"
    assert words[words.index("--weight-decay") + 1] == "0"


def test_accelerates_file_has_no_accumulation_and_the_call_has() -> None:
    files = export(source(), "accelerate").files
    assert "gradient_accumulation_steps" not in yaml.safe_load(files["accelerate_config.yaml"])
    assert "gradient_accumulation_steps=2" in files["accelerator.py"]
    assert any("num_workers" in note and "DataLoader" in note for note in export(source(), "accelerate").notes)


def test_deepspeed_is_told_micro_batch_and_accumulation_and_never_their_product() -> None:
    assert json.loads(export(source(), "deepspeed").files["ds_config.json"]) == {
        "train_micro_batch_size_per_gpu": 8,
        "gradient_accumulation_steps": 2,
        "dataloader_drop_last": True,
        "torch_autocast": {"enabled": True, "dtype": "bfloat16"},
        "gradient_clipping": 1.0,
    }


DEEPSPEED_KEYS = {
    *("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"),
    *("dataloader_drop_last", "torch_autocast"),
}
"""Of deepspeed/runtime/constants.py in DeepSpeed 0.19.8."""


def test_deepspeeds_keys_are_its_own() -> None:
    values = json.loads(export(source(ON_CUDA, kind="cuda"), "deepspeed").files["ds_config.json"])
    assert values.keys() <= DEEPSPEED_KEYS
    assert values["torch_autocast"].keys() <= {"enabled", "dtype", "lower_precision_safe_modules"}


@pytest.mark.slow
def test_deepspeed_reads_its_file(tmp_path: Any) -> None:
    config = pytest.importorskip("deepspeed.runtime.config")
    file = tmp_path / "ds_config.json"
    file.write_text(export(source(), "deepspeed").files[file.name])
    read = config.DeepSpeedConfig(str(file))
    assert (read.train_micro_batch_size_per_gpu, read.gradient_accumulation_steps, read.train_batch_size) == (8, 2, 16)
    assert read.torch_autocast_enabled and not read.bfloat16_config.enabled
    assert read.gradient_clipping == 1.0


def test_transformers_is_told_of_clipping_where_the_study_did_and_the_user_where_it_did_not() -> None:
    clipped, unclipped = (
        export(source(training=training), "transformers") for training in ({"clip_grad_norm": 2.0}, {})
    )
    assert "max_grad_norm=2.0," in clipped.files["training_arguments.py"]
    assert any(note == "max_grad_norm=2 is the study's own; yours wins." for note in clipped.notes)
    assert "max_grad_norm=" not in unclipped.files["training_arguments.py"].partition('"""\n')[2]
    assert any("The study did not clip: max_grad_norm=0.0." in note for note in unclipped.notes)


def test_what_is_learnt_is_left_to_the_user_of_transformers() -> None:
    made = export(source(training={"optimizer": {"name": "adamw", "lr": 0.5, "weight_decay": 0.25}}), "transformers")
    written = made.files["training_arguments.py"].partition('"""\n')[2]
    assert not re.search("learning_rate=|weight_decay=|adam_", written)
    assert any("the study trained with lr=0.5, weight_decay=0.25." in note for note in made.notes)


def test_transformers_fuses_adamw_only() -> None:
    (text,) = export(source(), "transformers").files.values()
    assert 'optim="adamw_torch_fused"' in text
    made = export(source(training={"optimizer": {"name": "sgd"}}), "transformers")
    assert "optim=" not in made.files["training_arguments.py"].partition('"""\n')[2]
    assert any("fused_optimizer for AdamW only" in note for note in made.notes)


@pytest.mark.parametrize("name", ["accelerate", "lightning", "timm"])
def test_fp16_without_a_scaler_is_warned_of(name: str) -> None:
    notes = export(source(ON_CPU.replace(amp_dtype="fp16")), name).notes
    assert any("amp_dtype fp16" in note for note in notes)


def test_tf32_that_a_tool_turns_on_by_itself_is_named() -> None:
    config = ON_CUDA.replace(fp32_precision=None, amp_dtype="bf16")
    for name in ("timm", "transformers"):
        assert any("fp32_precision" in note for note in export(source(config, kind="cuda"), name).notes)
