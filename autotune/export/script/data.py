"""How an exported script builds the data set that the study trained on: a function `build_dataset`."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.errors import SpecError
from autotune.export.quoting import literal
from autotune.export.script.generated import generated_images
from autotune.export.script.piece import Own, Piece, function
from autotune.export.target import Source
from autotune.export.text import Expression, arguments, call
from autotune.spec import Spec
from autotune.spec.workload import ImageFolderSpec, SyntheticSpec, TimmDataSpec

_TRANSFORM = "from timm.data import create_transform"
_COUNT = '''\
def number_of_classes(dataset):
    """Number of classes according to the data set; None if it does not say."""
    names = getattr(dataset, "classes", None) or getattr(getattr(dataset, "reader", None), "class_to_idx", None)
    return getattr(dataset, "num_classes", None) or (len(names) if names else None)'''


@dataclass(frozen=True, kw_only=True)
class DataPiece(Piece):
    classes: str
    """Expression for the number of classes of `dataset`."""
    takes_folder: bool = False
    """Whether `build_dataset` is called with the folder that `--data` names."""
    folder: str | None = None
    """Default of `--data`; None: the option is required."""
    images: bool = True
    """Whether batches are certainly `(images, targets)`: two tensors, the first with four dimensions."""
    may_be_iterable: bool = False
    """Whether the data set may have neither an order to shuffle nor a length."""
    may_collate: bool = False
    """Whether the data set may make its batches itself."""


def data_piece(spec: Spec, source: Source) -> DataPiece:
    """The piece for the spec's data source. Raises SpecError for a source that only autotune can open."""
    data = spec.data
    if data.factory is not None:
        return _factory(Own(data.factory, "dataset_factory"), data.args)
    if data.timm is not None:
        return _timm(data.timm)
    if data.synthetic is not None and data.synthetic.storage == "memory":
        return _generated(data.synthetic)
    section = data.image_folder or data.synthetic
    if section is None:
        raise ValueError("the spec has no data source")
    folder = str(data.image_folder.path) if data.image_folder else source.data_folder
    return _image_folder(section, folder)


def _image_folder(section: ImageFolderSpec | SyntheticSpec, folder: str | None) -> DataPiece:
    body = [f"return ImageFolder(folder, {_transform(section)})"]
    return DataPiece(
        code=function("build_dataset(folder)", "Images, one folder per class, augmented as timm does.", body),
        imports=frozenset({_TRANSFORM, "from torchvision.datasets import ImageFolder"}),
        classes="len(dataset.classes)",
        takes_folder=True,
        folder=folder,
    )


def _transform(section: ImageFolderSpec | SyntheticSpec | TimmDataSpec) -> str:
    plain = {"no_aug": True} if section.augment == "none" else {}
    return call("create_transform", [literal(section.image_size), *arguments({"is_training": True, **plain})])


def _timm(section: TimmDataSpec) -> DataPiece:
    given = {
        "root": None if section.root is None else Expression("folder"),
        "split": section.split,
        "is_training": True,
        **section.args,
    }
    made = call("dataset = create_dataset", [literal(section.name), *arguments(given)])
    transform = function("transform(image)", None, ['return augment(image.convert("RGB"))'])
    body = [made, "dataset.transform = transform", "return dataset"]
    head = "build_dataset()" if section.root is None else "build_dataset(folder)"
    return DataPiece(
        code="\n\n\n".join([f"augment = {_transform(section)}", transform, function(head, None, body), _COUNT]),
        imports=frozenset({"from timm.data import create_dataset, create_transform"}),
        classes="number_of_classes(dataset)",
        takes_folder=section.root is not None,
        folder=None if section.root is None else str(section.root),
        may_be_iterable=True,
    )


def _generated(section: SyntheticSpec) -> DataPiece:
    sizes = {"samples": section.samples, "classes": section.classes, "size": section.image_size, "seed": section.seed}
    built = function("build_dataset()", None, [call("return PatternImages", arguments(sizes))])
    return DataPiece(
        code=f"{generated_images()}\n\n\n{built}",
        imports=frozenset({"import numpy as np", "from torch.utils.data import Dataset"}),
        classes=literal(section.classes),
    )


def _factory(own: Own, args: dict[str, object]) -> DataPiece:
    if own.named.startswith("autotune."):
        raise SpecError(
            "--to torch cannot name the study's data set: autotune.tune was given it as an object. Tune with a "
            "function that builds it, or export --to yaml"
        )
    body = [call(f"return {own.expression}", arguments(args))]
    return DataPiece(
        code=f"{function('build_dataset()', None, body)}\n\n\n{_COUNT}",
        classes="number_of_classes(dataset)",
        images=False,
        may_be_iterable=True,
        may_collate=True,
        own=own,
    )
