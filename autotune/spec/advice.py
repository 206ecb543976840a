"""Suggestions for keys and values that people write although the spec has other names for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from autotune.spec.outline import places_of

_NO = ("no", "off", "false", "null", "disabled", "never", "0")
_YES = ("yes", "on", "true", "enabled", "1")

_MEANT: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "amp_dtype": {
        "none": (*_NO, "fp32", "float32", "full", "32"),
        "fp16": ("float16", "half", "f16", "16", "mixed", "16-mixed"),
        "bf16": ("bfloat16", "brain", "bf16-mixed"),
    },
    "memory_format": {"channels_last": ("nhwc",), "contiguous": ("nchw", "contiguous_format", "default", *_NO)},
    "compile": {"none": (*_NO, "eager"), "default": (*_YES, "inductor")},
    "fp32_precision": {"ieee": ("highest", "fp32", "float32", "none", *_NO), "tf32": ("high", *_YES)},
    "loss": {"cross_entropy": ("ce", "cross-entropy", "crossentropy", "crossentropyloss")},
    "device": {"cuda": ("gpu", "nvidia"), "mps": ("metal",)},
    "effective_batch_size": {
        "baseline": ("same", "fixed", "default"),
        "free": ("auto", "any", "none", "search", "null"),
    },
    "objective": {"throughput": ("speed", "samples_per_s", "samples_per_second")},
    "augment": {"none": _NO, "timm": _YES},
    "storage": {"memory": ("ram",), "jpeg": ("jpg", "disk")},
    "backend": {"local": ("none",)},
}
_KEYS: Mapping[str, str] = {
    "batch_size": "micro_batch_size",
    "global_batch_size": "effective_batch_size",
    "total_batch_size": "effective_batch_size",
    "gradient_accumulation_steps": "grad_accum_steps",
    "accumulate_grad_batches": "grad_accum_steps",
    "accumulation_steps": "grad_accum_steps",
    "amp": "amp_dtype",
    "precision": "amp_dtype",
    "mixed_precision": "amp_dtype",
    "channels_last": "memory_format",
    "workers": "num_workers",
    "torch_compile": "compile",
    "gradient_checkpointing": "activation_checkpointing",
    "learning_rate": "lr",
    "max_grad_norm": "clip_grad_norm",
    "criterion": "loss",
    "time": "budget",
    "timeout": "budget",
    "dataset": "data",
    "img_size": "image_size",
}

_LEFT_TO_THE_USER: Mapping[str, tuple[str, ...]] = {
    "trials train at one learning rate; step a scheduler in your own loop, where out.optimizer_stepped is true": (
        "scheduler",
        "lr_scheduler",
        "schedule",
        "warmup",
        "warmup_steps",
        "warmup_epochs",
    ),
    "trials do not validate; validate in your own loop, between steps": (
        "validation",
        "val",
        "eval",
        "metrics",
        "early_stopping",
    ),
    "trials keep no average of the weights; update it in your own loop, after each step": ("ema", "swa"),
    "trials run for seconds, not epochs; your own loop decides how long you train": ("epochs", "max_epochs", "steps"),
    "trials log and save only their measurements; log and save in your own loop": (
        "logging",
        "logger",
        "callbacks",
        "checkpoint",
        "checkpoints",
    ),
}
"""Keys that people write under `training` for features of their own training that trials leave out."""

_SLIP = 0.85
"""If a key is at least this similar to a key of its own section, it counts as a misspelling of that key."""


def meant_value(field: str, written: object, allowed: Sequence[str]) -> str | None:
    """The allowed value of `field` that `written` most likely stands for."""
    text = "null" if written is None else str(written).lower()
    for value, synonyms in _MEANT.get(field, {}).items():
        if value in allowed and text in synonyms:
            return value
    return _nearest(text, allowed)


def left_to_the_user(written: str, section: str) -> str | None:
    """Why the spec does not have the key `written`, and where it belongs instead; None if it is no feature of a user's
    own training."""
    left = next((why for why, keys in _LEFT_TO_THE_USER.items() if written.lower() in keys), None)
    return f"{left} (docs/own.md, What a search leaves out)" if left and section in ("", "training") else None


def meant_key(written: str, section: str, allowed: Sequence[str]) -> str:
    """The advice for the unknown key `written` in the section at the dotted path `section`."""
    if slip := _nearest(written, allowed, cutoff=_SLIP):
        return f"did you mean {slip}?"
    if places := places_of(written):
        return f"it belongs at {_either(places)}"
    known = _KEYS.get(written.lower())
    if known and known not in allowed:
        return f"did you mean {_either(places_of(known))}?"
    if near := known or _nearest(written, allowed):
        return f"did you mean {near}?"
    return f"{section or 'the top level'} takes {', '.join(allowed)}"


def _nearest(text: str, options: Sequence[str], cutoff: float = 0.6) -> str | None:
    lower = {option.lower().replace("-", "_"): option for option in options}
    found = get_close_matches(text.lower().replace("-", "_"), lower, n=1, cutoff=cutoff)
    return lower[found[0]] if found else None


def _either(places: Sequence[str]) -> str:
    return " or ".join(places[:3])
