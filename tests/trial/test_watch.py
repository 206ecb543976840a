"""What the stability gates look at, on small real modules: sketches of gradients, norms, largest activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autotune.records import FirstGradient, LargestActivation, TrialEvent
from autotune.trial import watch as watching
from autotune.trial.loop import Watch
from autotune.trial.timeline import HostTimeline
from autotune.trial.watch import ActivationWatch, GradientWatch, count_sketch

SHAPES = [(32, 16, 3, 3), (32,), (100, 300), (), (7, 1, 11)]
BUCKETS = 4096


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def in_shapes(vector: Tensor) -> list[Tensor]:
    parts = vector.split([math.prod(shape) for shape in SHAPES])
    return [part.reshape(shape) for part, shape in zip(parts, SHAPES, strict=True)]


def two_vectors(cosine: float) -> tuple[Tensor, Tensor]:
    """The elements of one have a mean, which buckets without signs would pile up."""
    size = sum(math.prod(shape) for shape in SHAPES)
    first, other = 1.0 + normal(size, seed=1).double(), normal(size, seed=2).double()
    other = other - first * (other @ first) / (first @ first)
    second = cosine * first / first.norm() + math.sqrt(1 - cosine**2) * other / other.norm()
    return first, 0.03 * second


def cosine_of(first: Tensor, second: Tensor) -> float:
    return float(first @ second / (first.norm() * second.norm()))


@pytest.mark.parametrize("cosine", [-1.0, -0.6, 0.0, 0.5, 0.9, 0.98, 0.99, 0.999, 1.0])
def test_two_sketches_have_nearly_the_cosine_of_what_they_are_of(cosine: float) -> None:
    first, second = two_vectors(cosine)
    sketched = cosine_of(count_sketch(in_shapes(first)), count_sketch(in_shapes(second)))
    assert abs(sketched - cosine) <= 4 * (1 - cosine**2) / math.sqrt(BUCKETS) + 1e-9


def test_a_sketch_is_small_exact_and_on_the_cpu() -> None:
    sketch = count_sketch(in_shapes(two_vectors(0.0)[0]))
    assert (sketch.shape, sketch.dtype, sketch.device.type) == ((BUCKETS,), torch.float64, "cpu")


def test_a_sketch_keeps_the_norm() -> None:
    vector = two_vectors(0.0)[0]
    assert float(count_sketch([vector]).norm()) == pytest.approx(float(vector.norm()), rel=4 / math.sqrt(BUCKETS))


def test_the_sketch_is_the_same_however_a_tensor_lies_in_memory() -> None:
    weight = normal(32, 16, 3, 3)
    strided = weight.to(memory_format=torch.channels_last)
    assert strided.stride() != weight.stride()
    assert torch.equal(count_sketch([strided]), count_sketch([weight]))
    assert torch.equal(count_sketch([normal(40, 30).t()]), count_sketch([normal(40, 30).t().contiguous()]))


def test_the_sketch_is_linear_and_draws_from_no_generator_but_its_own() -> None:
    first, second = two_vectors(0.5)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    together = count_sketch(in_shapes(first + second))
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(together, count_sketch(in_shapes(first)) + count_sketch(in_shapes(second)))


@pytest.mark.parametrize("chunk", [1000, 4096, 4097])
def test_the_sketch_does_not_depend_on_the_chunks_it_is_made_in(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    tensors = in_shapes(two_vectors(0.0)[0])
    whole = count_sketch(tensors)
    monkeypatch.setattr(watching, "_CHUNK", chunk)
    torch.testing.assert_close(count_sketch(tensors), whole)


def test_elements_of_different_chunks_and_tensors_do_not_share_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else +1 in one and −1 in the other would cancel."""
    monkeypatch.setattr(watching, "_CHUNK", 1000)
    ones = torch.ones(1000)
    halves = torch.cat([ones, -ones])
    assert float(count_sketch([halves]).norm()) == pytest.approx(math.sqrt(2000), rel=0.1)
    assert float(count_sketch([ones, -ones]).norm()) == pytest.approx(math.sqrt(2000), rel=0.1)


def parameters_with(*gradients: Sequence[float] | None) -> list[nn.Parameter]:
    parameters = []
    for values in gradients:
        parameter = nn.Parameter(torch.zeros(len(values or [0.0])))
        parameter.grad = None if values is None else torch.tensor(values)
        parameters.append(parameter)
    return parameters


def test_the_norm_of_every_gradient_is_kept_until_it_is_asked_for() -> None:
    watch = GradientWatch()
    watch.look(parameters_with([3.0, 0.0], None, [4.0]))
    watch.look(parameters_with([1.0]))
    assert watch.harvest() == pytest.approx([5.0, 1.0])
    assert watch.harvest() == []
    watch.look(parameters_with([math.inf]))
    watch.look(parameters_with([math.nan, 1.0]))
    assert watch.harvest() == pytest.approx([math.inf, math.nan], nan_ok=True)


def test_the_first_gradient_is_condensed_and_no_later_one() -> None:
    watch = GradientWatch()
    watch.look(parameters_with([3.0, 0.0, -0.0], None, [4.0]))
    watch.look(parameters_with([7.0]))
    assert watch.first is not None
    assert watch.first.norm == pytest.approx(5.0)
    assert watch.first.zero_share == 0.5
    expected = count_sketch([torch.tensor([3.0, 0.0, 0.0]), torch.tensor([4.0])])
    assert watch.first.sketch == expected.tolist()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_is_not_the_first(bad: float) -> None:
    """The scaler skips such a step while it finds its scale."""
    watch = GradientWatch()
    watch.look(parameters_with([1.0, bad]))
    assert watch.first is None
    watch.look(parameters_with([2.0, 0.0]))
    watch.look(parameters_with([3.0, 3.0]))
    assert watch.first is not None
    assert watch.first.norm == 2.0


def test_without_gradients_there_is_nothing_to_see() -> None:
    watch = GradientWatch()
    watch.look(parameters_with(None))
    watch.look([])
    assert watch.first is None
    assert watch.harvest() == [0.0, 0.0]


def test_the_gradient_itself_is_left_alone_and_later_changes_do_not_reach_the_norm() -> None:
    """It is clipped and zeroed in place right afterwards."""
    (parameter,) = parameters_with([3.0, 4.0])
    watch = GradientWatch()
    watch.look([parameter])
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [3.0, 4.0]
    parameter.grad.zero_()
    assert watch.harvest() == [5.0]


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, value: Tensor) -> Tensor:
        return value * self.factor


class Returns(nn.Module):
    """Whatever `make` makes of the input."""

    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.make = make

    def forward(self, value: Tensor) -> Any:
        return self.make(value)


def refuse_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("the device was waited for")

    for name in ("item", "tolist", "numpy", "cpu", "__float__", "__int__", "__bool__", "__index__"):
        monkeypatch.setattr(Tensor, name, refuse)


def test_the_largest_absolute_output_and_its_module() -> None:
    model = nn.Sequential(Times(2.0), nn.Sequential(Times(-100.0), Times(0.01)))
    watch = ActivationWatch(model)
    model(torch.tensor([0.5, -3.0]))
    largest = watch.largest()
    assert largest is not None
    assert (largest.module, largest.value) == ("1.0", pytest.approx(600.0))


def test_of_modules_that_put_out_the_same_the_innermost_is_named() -> None:
    model = nn.Sequential(nn.Sequential(Times(1.0)))
    watch = ActivationWatch(model)
    model(torch.ones(2))
    assert watch.largest() == LargestActivation(value=1.0, module="0.0")


def test_a_model_without_modules_inside_is_named_by_nothing() -> None:
    model = Times(3.0)
    watch = ActivationWatch(model)
    assert watch.largest() is None
    model(torch.ones(2))
    assert watch.largest() == LargestActivation(value=3.0, module="")


@pytest.mark.parametrize(("large_at", "seen"), [(step, step in (1, 2, 4, 8, 16)) for step in range(1, 19)])
def test_steps_1_2_4_8_are_looked_at_and_all_their_micro_batches(large_at: int, seen: bool) -> None:
    model = nn.Sequential(Times(1.0))
    watch = ActivationWatch(model)
    for step in range(1, 19):
        for micro_batch in range(2):
            model(torch.tensor([100.0 if (step, micro_batch) == (large_at, 1) else 1.0]))
        watch.step_ended()
    largest = watch.largest()
    assert largest is not None
    assert largest.value == (100.0 if seen else 1.0)


@pytest.mark.parametrize("when", [1, 2, 4])
def test_nothing_is_larger_than_not_a_number(when: int) -> None:
    """Once seen it stays, whatever comes after it, in the model or in time."""
    values = {"bad": 1.0}
    model = nn.Sequential(
        Times(1e30), Returns(lambda value: value * values["bad"]), Returns(torch.nan_to_num), Times(1e8)
    )
    watch = ActivationWatch(model)
    for step in range(1, 9):
        values["bad"] = math.nan if step == when else 1.0
        model(torch.ones(2))
        watch.step_ended()
    largest = watch.largest()
    assert largest is not None
    assert math.isnan(largest.value)
    assert largest.module == "1"


def test_infinite_is_larger_than_any_number() -> None:
    model = nn.Sequential(Times(60_000.0), Returns(lambda value: value.half() * 2), Returns(lambda value: value * 0))
    watch = ActivationWatch(model)
    model(torch.ones(2))
    assert watch.largest() == LargestActivation(value=math.inf, module="1")


@pytest.mark.parametrize(
    "make",
    [
        lambda value: (value, None, 3),
        lambda value: [torch.arange(1000), value],
        lambda value: {"loss": value, "name": "logits", "nested": [(value,), {"last": value * 0}]},
        lambda value: (torch.empty(0), value),
        lambda value: value.to(torch.bfloat16),
        lambda value: value.to(torch.float16),
    ],
)
def test_outputs_of_any_structure_are_looked_into(make: Callable[[Tensor], Any]) -> None:
    model = nn.Sequential(Returns(make))
    watch = ActivationWatch(model)
    model(torch.tensor([1.0, -8.0]))
    assert watch.largest() == LargestActivation(value=8.0, module="0")


@pytest.mark.parametrize(
    "make", [lambda value: None, lambda value: 5.0, lambda value: value.long(), lambda value: (), lambda value: "text"]
)
def test_a_model_that_puts_out_no_floating_point_tensor_has_no_largest(make: Callable[[Tensor], Any]) -> None:
    model = nn.Sequential(Returns(make))
    watch = ActivationWatch(model)
    model(torch.ones(2))
    assert watch.largest() is None


def test_a_real_model_is_looked_at_through_its_convolutions_and_losses() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(288, 5))
    outputs: dict[str, float] = {}
    for name, module in model.named_children():
        module.register_forward_hook(
            lambda _module, _inputs, output, name=name: outputs.update({name: output.abs().max().item()})
        )
    watch = ActivationWatch(model)
    model(torch.randn(4, 3, 8, 8)).sum().backward()
    largest = watch.largest()
    assert largest is not None
    assert largest.value == pytest.approx(max(outputs.values()))
    assert outputs[largest.module] == largest.value


def test_looking_at_activations_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Returns(lambda value: {"logits": value}))
    watch = ActivationWatch(model)
    batch = torch.ones(2, 4)
    refuse_to_wait(monkeypatch)
    for _ in range(3):
        model(batch)
        watch.step_ended()
    monkeypatch.undo()
    assert watch.largest() is not None


def test_looking_at_gradients_waits_for_the_first_only(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = GradientWatch()
    watch.look(parameters_with([1.0]))
    later = parameters_with([3.0, 4.0])
    refuse_to_wait(monkeypatch)
    watch.look(later)
    monkeypatch.undo()
    assert watch.harvest() == [1.0, 5.0]


def make_watch() -> Watch:
    return Watch(timeline=HostTimeline(lambda: 0.0))


def test_only_who_is_asked_to_looks() -> None:
    watch = make_watch()
    watch.look_at_gradients(parameters_with([1.0]))
    assert watch.findings() == {"first_gradient": None, "largest_activation": None}


def test_a_compiled_models_activations_are_left_alone() -> None:
    """Hooks would take it apart."""
    model = nn.Sequential(Times(1.0))
    watch = make_watch()
    watch.look_at_training(model, compiled=True)
    watch.look_at_gradients(parameters_with([1.0]))
    model(torch.ones(1))
    findings = watch.findings()
    assert findings["largest_activation"] is None
    assert findings["first_gradient"]["norm"] == 1.0
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("value", [2.5, math.nan, math.inf])
def test_findings_survive_their_way_to_the_controller(value: float) -> None:
    model = nn.Sequential(Times(value))
    watch = make_watch()
    watch.look_at_training(model, compiled=False)
    model(torch.ones(1))
    watch.look_at_gradients(parameters_with([1.0, 0.0]))
    line = TrialEvent(event="result", at_s=0.0, payload=watch.findings()).model_dump_json()
    payload = TrialEvent.model_validate_json(line).payload
    assert LargestActivation.model_validate(payload["largest_activation"]).value == pytest.approx(value, nan_ok=True)
    assert FirstGradient.model_validate(payload["first_gradient"]).zero_share == 0.5
