"""The sections that say what is trained: model, data, loss and optimizer. The search does not change them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from autotune.spec.domains import EffectiveBatch
from autotune.spec.fields import FactoryPath, Folder, Loss, Section, Seed, located


class ModelSpec(Section):
    """The model: exactly one of `timm` and `factory`."""

    timm: str | None = None
    """Any name that `timm.create_model` knows; built untrained unless `args` says otherwise."""
    factory: FactoryPath | None = None
    """`package.module:callable` that returns an `nn.Module`."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the model's constructor. Default of `num_classes` for timm models: as in the data set."""
    sync_batch_norm: bool = False
    """With several ranks: BatchNorm over the micro-batches of all of them. Accelerators only."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        _require_one(self, ("timm", "factory"))
        return self


Augment = Literal["timm", "none"]


class ImageFolderSpec(Section):
    """JPEG or PNG files, one folder per class."""

    path: Folder
    """The folder that contains the class folders, relative to the spec's folder; `~` is the home folder."""
    image_size: PositiveInt = 224
    """Pixels along the edge of the square that the model sees."""
    augment: Augment = "timm"
    """`timm`: its training augmentation (random resized crop, flip, colour jitter) · `none`: resize and centre crop."""


class TimmDataSpec(Section):
    """Any data set that `timm.data.create_dataset` knows: `torch/…`, `hfds/…`, `wds/…`, `tfds/…`."""

    name: str
    """With its scheme: `torch/cifar10`."""
    root: Folder | None = None
    """Folder of the data set, or for its download, relative to the spec's folder; `~` is the home folder."""
    split: str = "train"
    """Name of the split in the data set."""
    image_size: PositiveInt = 224
    """Pixels along the edge of the square that the model sees."""
    augment: Augment = "timm"
    args: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of `create_dataset`, such as `download`."""


class SyntheticSpec(Section):
    """Generated images of classes that a network can learn."""

    samples: PositiveInt = 2048
    classes: Annotated[int, Field(ge=2)] = 10
    image_size: PositiveInt = 224
    """Pixels along the edge of the square that the model sees."""
    storage: Literal["memory", "jpeg"] = "memory"
    """`memory`: tensors, no decoding · `jpeg`: real JPEG files, written once into a cache folder."""
    file_size: PositiveInt | None = None
    """For `storage: jpeg`: pixels along the edge of the files; photos are usually larger than the model's input.
    Default: 8/7 of `image_size`."""
    augment: Augment = "timm"
    """For `storage: jpeg`; tensors in memory are not augmented."""
    seed: Seed = 0


class DataSpec(Section):
    """The data set: exactly one of `image_folder`, `timm`, `synthetic` and `factory`."""

    image_folder: ImageFolderSpec | None = None
    timm: TimmDataSpec | None = None
    synthetic: SyntheticSpec | None = None
    factory: FactoryPath | None = None
    """`package.module:callable` that returns a map-style or iterable Dataset of `(input, target)`, or of whatever
    `training.loss` takes."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the factory."""
    collate: FactoryPath | None = None
    """`package.module:function` that makes a batch of a list of samples, as a DataLoader's `collate_fn`.
    Default: the data set's own method `collate_fn`, else PyTorch's `default_collate`."""

    @model_validator(mode="before")
    @classmethod
    def _empty_source_takes_defaults(cls, value: Any) -> Any:
        """An empty `synthetic:` selects that source with its defaults."""
        given = [name for name in ("image_folder", "timm", "synthetic") if isinstance(value, dict) and name in value]
        return {**value, given[0]: value[given[0]] or {}} if len(given) == 1 else value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        _require_one(self, ("image_folder", "timm", "synthetic", "factory"))
        if self.args and self.factory is None:
            raise located(
                ("args",), "goes with `factory` only; the other sources take their arguments in their own mapping"
            )
        return self


def _require_one(section: Section, names: tuple[str, ...]) -> None:
    given = [name for name in names if getattr(section, name) is not None]
    if len(given) != 1:
        found = f"found {' and '.join(given)}" if given else "found none"
        raise ValueError(f"give exactly one of {', '.join(names)}; {found}")


_FACTORY = "factory"
"""Value of `name` if there is a factory."""


class OptimizerSpec(Section):
    """The optimizer: a class of `torch.optim` by its name, in any case, or a factory; and its arguments."""

    model_config = ConfigDict(extra="allow")

    name: str = "sgd"
    """`sgd`, `adamw`, `rmsprop`, …"""
    factory: FactoryPath | None = None
    """`package.module:callable`, called with the model and the arguments, that returns an optimizer: for groups of
    parameters, and optimizers of other libraries. `optimizer: "package.module:callable"` says the same."""
    lr: Annotated[float, Field(gt=0)] = 0.05
    """The learning rate; write further arguments, such as `momentum`, next to it. A factory gets only the given
    arguments."""

    @model_validator(mode="before")
    @classmethod
    def _factory_alone(cls, value: Any) -> Any:
        is_own = isinstance(value, dict) and value.get("factory") is not None
        return {"name": _FACTORY, **value} if is_own else value

    @model_validator(mode="after")
    def _name_or_factory(self) -> Self:
        if self.factory is not None and self.name != _FACTORY:
            raise located(("name",), f"give either a name or a factory, not both; it is {self.name}")
        if self.factory is None and self.name == _FACTORY:
            raise located(("name",), "needs training.optimizer.factory: package.module:callable, called with the model")
        return self

    @property
    def args(self) -> dict[str, Any]:
        """Keyword arguments of the optimizer, with `lr` if it is known."""
        return ({} if self.known_lr is None else {"lr": self.known_lr}) | (self.model_extra or {})

    @property
    def known_lr(self) -> float | None:
        """The learning rate; None if a factory sets its own."""
        return self.lr if self.factory is None or "lr" in self.model_fields_set else None

    @property
    def called(self) -> str:
        """The class or the factory, as the spec names it."""
        return self.factory or self.name

    def with_args(self, args: Mapping[str, Any]) -> Self:
        chosen = {"name": self.name} if self.factory is None else {"factory": self.factory}
        return self.model_validate({**chosen, **args})

    @model_serializer(mode="wrap")
    def _as_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keep arguments such as `foreach: null`, which `exclude_none` would drop. Drop the default learning rate if
        there is a factory."""
        left_out = {"factory"} if self.factory is None else {"name"}
        if self.known_lr is None:
            left_out.add("lr")
        written = {name: value for name, value in handler(self).items() if name not in left_out}
        return {**written, **{name: None for name, value in (self.model_extra or {}).items() if value is None}}


def _factory_for_short(value: object) -> object:
    return {"factory": value} if isinstance(value, str) and ":" in value else value


Optimizer = Annotated[
    OptimizerSpec, BeforeValidator(_factory_for_short, json_schema_input_type=OptimizerSpec | FactoryPath | None)
]


class TrainingSpec(Section):
    """What is optimised, and how; the search does not change it."""

    loss: Loss = "cross_entropy"
    """`cross_entropy`, or `package.module:function`. It is called as `function(model, batch)` and returns a scalar loss
    or a tuple `(summed_loss, count)`."""
    optimizer: Optimizer = OptimizerSpec()
    """A class of `torch.optim`, or a factory that is called with the model; `package.module:callable` for short."""
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest total gradient norm, as `torch.nn.utils.clip_grad_norm_` takes it. Default: no clipping."""
    seed: Seed = 0
    effective_batch_size: EffectiveBatch = "baseline"
    """Samples per optimizer step. `baseline`: held at the baseline's · a number: held fixed · `{min, max}`: a range ·
    `free`: searched."""
