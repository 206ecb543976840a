"""The error of this package: PyTorch accepts many settings, warns, and ignores them; this package raises instead."""

from __future__ import annotations


class MeanOfMeans(UserWarning):
    """Warning: micro-batches of different shapes are accumulated with a loss that is the mean over each of them."""


class SettingHasNoEffect(ValueError):
    """A knob is set to a value that this device, model or optimizer would silently ignore.

    `knob` is the field of `TrainConfig`, `reason` says in a few words why the value cannot take effect.
    """

    def __init__(self, knob: str, value: object, reason: str) -> None:
        super().__init__(knob, value, reason)
        self.knob = knob
        self.value = value
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.knob}: {self.value} has no effect: {self.reason}"
