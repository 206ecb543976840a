"""How an exported script builds the model and the optimizer of the study: a function `build_model`."""

from __future__ import annotations

from autotune.errors import SpecError
from autotune.export.quoting import literal
from autotune.export.script.data import DataPiece
from autotune.export.script.piece import Own, Piece, block, function
from autotune.export.target import Source
from autotune.export.text import Expression, arguments, call
from autotune.spec import Spec

OPTIMIZERS = (
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
    "SparseAdam",
)
"""Classes of torch.optim that specs name, in any case."""


def takes_classes(spec: Spec) -> bool:
    """Whether the model is told how many classes the data set has."""
    return spec.model.timm is not None and "num_classes" not in spec.model.args


def model_piece(spec: Spec, source: Source) -> Piece:
    """`build_model`; it gets the number of classes if the spec leaves it to the data set."""
    config = source.config
    compiled = "" if config.compile == "default" else f"mode={literal(config.compile)}"
    body = [
        f"model = {_built(spec)}",
        *(_checkpointing(spec) if config.activation_checkpointing else []),
        None if source.on_cpu else "model.to(DEVICE)",
        _channels_last(spec) if config.memory_format == "channels_last" else None,
        "model.train()",
        f"model.compile({compiled})" if config.compile != "none" else None,
        "return model",
    ]
    head = "build_model(num_classes)" if takes_classes(spec) else "build_model()"
    imports = {"import timm"} if spec.model.timm is not None else set()
    return Piece(code=function(head, None, body), imports=frozenset(imports), own=_factory(spec))


def _factory(spec: Spec) -> Own | None:
    return Own(spec.model.factory, "model_factory") if spec.model.factory is not None else None


def _built(spec: Spec) -> str:
    own = _factory(spec)
    if own is not None:
        return call(own.expression, arguments(spec.model.args))
    classes = {"num_classes": Expression("num_classes")} if takes_classes(spec) else {}
    return call("timm.create_model", [literal(str(spec.model.timm)), *arguments({**classes, **spec.model.args})])


def _checkpointing(spec: Spec) -> list[str]:
    if spec.model.timm is not None:
        return ["model.set_grad_checkpointing()"]
    # the method's name in timm, or in transformers
    return [
        'switch = getattr(model, "set_grad_checkpointing", None) or model.gradient_checkpointing_enable',
        "switch()",
    ]


def _channels_last(spec: Spec) -> str:
    if spec.model.timm is not None:
        return "model.to(memory_format=torch.channels_last)"
    # `Module.to` would fail on the five dimensions of a 3-D convolution.
    each = block("if tensor.dim() == 4", ["tensor.data = tensor.data.to(memory_format=torch.channels_last)"])
    return block("for tensor in (*model.parameters(), *model.buffers())", [each])


def built_model(spec: Spec, data: DataPiece) -> str:
    """The call of `build_model`."""
    return f"build_model({data.classes})" if takes_classes(spec) else "build_model()"


def own_optimizer(spec: Spec) -> Own | None:
    factory = spec.training.optimizer.factory
    return None if factory is None else Own(factory, "optimizer_factory")


def built_optimizer(spec: Spec, *, fused: bool) -> str:
    """The call that makes the optimizer of `model`. Raises SpecError for an optimizer that torch.optim does not
    have."""
    asked = spec.training.optimizer
    given = [*arguments(asked.args), *(["fused=True"] if fused else [])]
    own = own_optimizer(spec)
    if own is not None:
        return call(f"optimizer = {own.expression}", ["model", *given])
    name = next((each for each in OPTIMIZERS if each.lower() == asked.name.lower()), None)
    if name is None:
        raise SpecError(f"--to torch knows no class '{asked.name}' of torch.optim; export --to yaml instead")
    return call(f"optimizer = torch.optim.{name}", ["model.parameters()", *given])
