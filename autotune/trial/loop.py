"""The training loop of a trial, one optimizer step at a time, with its losses and where its time goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from autotune.records import OptimizerSteps, StepPhase
from autotune.training import StepMark, StepOutput
from autotune.trial.crew import ALONE, HARVEST, Crew, discard
from autotune.trial.failure import Diverged
from autotune.trial.first_window import FirstWindow
from autotune.trial.timeline import Timeline
from autotune.trial.watch import ActivationWatch, GradientWatch

Clock = Callable[[], float]


class Step(Protocol):
    """The part of `autotune.training.TrainStep` that the loop uses."""

    loss_scale: float | None

    def __call__(self, batch: Any) -> StepOutput: ...


@dataclass(kw_only=True)
class Watch:
    """What observes a step: always the timeline; gradients and activations only in runs for the stability gates."""

    timeline: Timeline
    gradients: GradientWatch | None = None
    activations: ActivationWatch | None = None

    def look_at_training(self, model: nn.Module, *, compiled: bool) -> None:
        """Watch gradients from now on, and activations too unless the model is compiled (hooks would break its
        graph)."""
        self.gradients = GradientWatch()
        self.activations = None if compiled else ActivationWatch(model)

    def mark(self, phase: StepMark) -> None:
        self.timeline.mark(phase)

    def look_at_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        if self.gradients is not None:
            self.gradients.look(parameters)

    def findings(self) -> dict[str, Any]:
        """For the trial's result: the first gradient and the largest activation; None for what was not watched."""
        gradient = self.gradients.first if self.gradients else None
        activation = self.activations.largest() if self.activations else None
        return {
            "first_gradient": gradient.model_dump(mode="json") if gradient else None,
            "largest_activation": activation.model_dump(mode="json") if activation else None,
        }


@dataclass
class Loop:
    """Takes batches, trains on them, and keeps the results of the steps."""

    batches: Iterator[Any]
    step: Step
    clock: Clock
    synchronise: Callable[[], None]
    watch: Watch
    crew: Crew = ALONE
    trains_on_cpu: bool = False
    samples: int = 0
    """Samples over all processes that train together."""
    steps_done: int = 0
    _losses: list[torch.Tensor] = field(default_factory=list)
    _samples: list[int] = field(default_factory=list)
    _skipped: list[bool] = field(default_factory=list)
    _scales: list[float] = field(default_factory=list)

    def begin(self, steps: int) -> None:
        """Let all processes that train together do `steps` steps; call this before the clock starts."""
        self.crew.lead(steps)
        self.watch.timeline.restart()

    @property
    def ranks(self) -> int:
        return self.crew.size

    def phases(self, seconds: float) -> dict[StepPhase, float]:
        """How the time since `begin` was spent, as shares of `seconds`; call this after the device has done its
        work."""
        return self.watch.timeline.phases(seconds)

    def discard(self, batches: int) -> None:
        """Take `batches` micro-batches without training on them, in all processes that train together."""
        self.crew.lead(discard(batches))
        for _ in range(batches):
            next(self.batches)

    def optimizer_step(self) -> None:
        """Train on micro-batches until the window closes; waits for nothing but data."""
        closed = False
        while not closed:
            batch = next(self.batches)
            self.watch.timeline.mark("data_wait")
            out = self.step(batch)
            closed = out.window_closed
        self.crew.note_step()
        self.samples += out.samples * self.crew.size
        self.steps_done += 1
        self._losses.append(out.loss)
        self._samples.append(out.samples)
        self._skipped.append(not out.optimizer_stepped)
        if isinstance(self.batches, FirstWindow):
            self.batches.window_closed(skipped=not out.optimizer_stepped)
        if self.step.loss_scale is not None:
            self._scales.append(self.step.loss_scale)
        if self.watch.activations is not None:
            self.watch.activations.step_ended()

    def harvest(self) -> OptimizerSteps:
        """Results of the steps since the last harvest. Copies from the device, so call it only between blocks.

        Raises Diverged when a loss is not finite.
        """
        self.crew.lead(HARVEST)
        losses = torch.stack(self._losses).double().tolist() if self._losses else []
        said = OptimizerSteps(
            losses=losses,
            samples=self._samples,
            skipped=self._skipped,
            loss_scales=self._scales,
            gradient_norms=self.watch.gradients.harvest() if self.watch.gradients else [],
        )
        self._losses, self._samples, self._skipped, self._scales = [], [], [], []
        steps = self.crew.pool(said)
        for offset, loss in enumerate(steps.losses):
            if not math.isfinite(loss):
                number = self.steps_done - len(losses) + offset + 1
                raise Diverged(f"the loss is {loss} at optimizer step {number}")
        return steps
