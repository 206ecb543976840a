"""How an exported script builds the data set that the study trained on."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.export.target import Source
from autotune.spec import Spec


@dataclass(frozen=True, kw_only=True)
class DataCode:
    """A function `build_dataset`, and what goes with it."""

    code: str
    imports: frozenset[str]
    classes: str | None
    """An expression for the number of classes, over `dataset`."""
    default_folder: str | None = ""
    """Of the option `--data`: empty where there is no such option, None where it has to be given."""
    needs_folder: bool = False
    """Whether modules beside the spec are imported."""


def data_source(spec: Spec, source: Source) -> DataCode:
    """For the spec's own data source."""
    data = spec.data
    if data.factory is not None:
        return _factory(data.factory, data.args)
    if data.timm is not None:
        return _timm(spec, source)
    if data.synthetic is not None and data.synthetic.storage == "memory":
        return _generated(spec)
    section = data.image_folder or data.synthetic
    if section is None:
        raise ValueError("a spec has one data source")
    no_aug = section.augment == "none"
    return DataCode(
        code=f"""def build_dataset(folder):
    \"\"\"JPEG or PNG files in one folder a class, decoded and augmented as timm does.\"\"\"
    return ImageFolder(folder, create_transform({section.image_size}, is_training=True, no_aug={no_aug}))""",
        imports=frozenset(
            {
                "from timm.data.transforms_factory import create_transform",
                "from torchvision.datasets import ImageFolder",
            }
        ),
        classes="len(dataset.classes)",
        default_folder=source.data_folder,
    )


def _factory(name: str, args: dict[str, object]) -> DataCode:
    module, _, path = name.partition(":")
    given = ", ".join(f"{key}={value!r}" for key, value in args.items())
    called = f"{module}.{path}" if "." in path else path
    return DataCode(
        code=f"def build_dataset():\n    return {called}({given})",
        imports=frozenset({f"import {module}" if "." in path else f"from {module} import {path}"}),
        classes=None,
        needs_folder=True,
    )


def _timm(spec: Spec, source: Source) -> DataCode:
    section = spec.data.timm
    if section is None:
        raise ValueError("the spec has no data.timm")
    root = None if section.root is None else str((source.folder or section.root) / section.root.expanduser())
    arguments = {"root": root, "split": section.split, "is_training": True, **section.args}
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    no_aug = section.augment == "none"
    return DataCode(
        code=f"""def build_dataset():
    transform = create_transform({section.image_size}, is_training=True, no_aug={no_aug})
    dataset = create_dataset({section.name!r}, {given})
    dataset.transform = lambda image: transform(image.convert("RGB"))
    return dataset""",
        imports=frozenset(
            {
                "from timm.data.dataset_factory import create_dataset",
                "from timm.data.transforms_factory import create_transform",
            }
        ),
        classes=None,
    )


def _generated(spec: Spec) -> DataCode:
    section = spec.data.synthetic
    if section is None:
        raise ValueError("the spec has no data.synthetic")
    size = section.image_size
    return DataCode(
        code=f"""class GeneratedImages(Dataset):
    \"\"\"Stands in for data, as the study's generated images did: {section.classes} patterns with noise.\"\"\"

    def __init__(self):
        rng = numpy.random.default_rng({section.seed})
        self.patterns = rng.integers(0, 216, ({section.classes}, {size}, {size}, 3), dtype=numpy.uint8)
        self.noise = rng.integers(0, 40, 3 * {size * size * 3}, dtype=numpy.uint8)
        self.starts = rng.integers(0, 2 * {size * size * 3}, {section.samples})

    def __len__(self):
        return {section.samples}

    def __getitem__(self, position):
        pattern = self.patterns[position % {section.classes}]
        start = self.starts[position]
        image = pattern + self.noise[start : start + pattern.size].reshape(pattern.shape)
        pixels = image.transpose(2, 0, 1).astype(numpy.float32, order="C")
        return torch.from_numpy((pixels - 128) / 64), position % {section.classes}


def build_dataset():
    return GeneratedImages()""",
        imports=frozenset({"import numpy", "from torch.utils.data import Dataset"}),
        classes=str(section.classes),
    )
