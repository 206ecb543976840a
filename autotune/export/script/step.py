"""The training step of an exported script: a function `train_step` that does the same as
`autotune.training.TrainStep`."""

from __future__ import annotations

from autotune.export.quoting import literal
from autotune.export.script.data import DataPiece
from autotune.export.script.piece import Own, Piece, block, function
from autotune.export.target import Source
from autotune.spec import Spec

_DTYPES = {"bf16": "torch.bfloat16", "fp16": "torch.float16"}
_ZERO_GRAD = (
    "# Here, not right after the update: the activations are freed then too, the C library would return the",
    "# memory to the system, and every page would fault again.",
    "optimizer.zero_grad()",
)
_CLEARING = {True: _ZERO_GRAD, False: ("optimizer.zero_grad()",)}


def step_piece(spec: Spec, source: Source, data: DataPiece) -> Piece:
    """`train_step(model, optimizer[, scaler], batches)`: one optimizer step; its mean loss."""
    step = _accumulating(spec, source, data) if source.config.grad_accum_steps > 1 else _single(spec, source, data)
    moves = _moving_function(source, data)
    imports = {"from torch.nn import functional"} if own_loss(spec) is None else set()
    if moves:
        imports.add("from collections.abc import Mapping")
    return Piece(code="\n\n\n".join(filter(None, [moves, step])), imports=frozenset(imports), own=own_loss(spec))


def own_loss(spec: Spec) -> Own | None:
    return None if spec.training.loss == "cross_entropy" else Own(spec.training.loss, "loss_function")


def step_arguments(source: Source) -> str:
    """Arguments of `train_step`, by their names."""
    return "model, optimizer, scaler, batches" if source.config.amp_dtype == "fp16" else "model, optimizer, batches"


def _single(spec: Spec, source: Source, data: DataPiece) -> str:
    body = [*_fetch(source, data), *_CLEARING[source.on_cpu], *_forward(spec, source, data)]
    if own_loss(spec) is not None:
        body.append(block("if isinstance(loss, tuple)", ["total, count = loss", "loss = total / count"]))
    body += [f"{_scaled('loss', source)}.backward()", *_update(spec, source), "return loss.detach()"]
    return function(f"train_step({step_arguments(source)})", "One optimizer step; its loss.", body)


def _accumulating(spec: Spec, source: Source, data: DataPiece) -> str:
    weighed = own_loss(spec) is not None
    micro_batch = [*_fetch(source, data), block("if micro_batch == 0", _CLEARING[source.on_cpu])]
    micro_batch += _forward(spec, source, data)
    micro_batch += _weighed_share() if weighed else ["share = loss / GRAD_ACCUM_STEPS"]
    micro_batch += [f"{_scaled('share', source)}.backward()", "window_loss += share.detach()"]
    body = ["window_loss, window_weight = 0.0, 0.0" if weighed else "window_loss = 0.0"]
    body.append(block("for micro_batch in range(GRAD_ACCUM_STEPS)", micro_batch))
    body += [*_update(spec, source, _correction() if weighed else ())]
    body.append("return window_loss * correction" if weighed else "return window_loss")
    said = "One optimizer step, over GRAD_ACCUM_STEPS micro-batches; the mean loss over all of them."
    return function(f"train_step({step_arguments(source)})", said, body)


def _weighed_share() -> list[str]:
    return [
        "# A mean over the samples, or a sum and the number of its terms.",
        "total, weight = loss if isinstance(loss, tuple) else (loss * MICRO_BATCH_SIZE, MICRO_BATCH_SIZE)",
        block("if micro_batch == 0", ["expected_weight = weight * GRAD_ACCUM_STEPS"]),
        "window_weight += weight",
        "share = total / expected_weight",
    ]


def _correction() -> tuple[str, ...]:
    return (
        "# Micro-batches may have another weight than the first one: the true mean is known only now.",
        "correction = expected_weight / window_weight",
        block("for parameter in model.parameters()", [block("if parameter.grad is not None", [_CORRECT])]),
    )


_CORRECT = "parameter.grad.mul_(correction)"


def _fetch(source: Source, data: DataPiece) -> list[str]:
    """Take the next micro-batch and move it to the device, in the layout of the model."""
    channels_last = source.config.memory_format == "channels_last"
    if not data.images:
        return [f"batch = {'to_device(next(batches))' if _moves(source) else 'next(batches)'}"]
    lines = ["images, targets = next(batches)"]
    if not source.on_cpu:
        how = ", non_blocking=True" if source.config.pin_memory else ""
        lines += [f"images = images.to(DEVICE{how})", f"targets = targets.to(DEVICE{how})"]
    if channels_last:
        # After the copy, so that the device changes the layout.
        lines.append("images = images.contiguous(memory_format=torch.channels_last)")
    return lines


def _moves(source: Source) -> bool:
    return not source.on_cpu or source.config.memory_format == "channels_last"


def _moving_function(source: Source, data: DataPiece) -> str:
    """`to_device`, for batches whose structure the study's data set defines."""
    if data.images or not _moves(source):
        return ""
    copy = "" if source.on_cpu else f".to(DEVICE{', non_blocking=True' if source.config.pin_memory else ''})"
    tensor = [] if source.on_cpu else [f"batch = batch{copy}"]
    if source.config.memory_format == "channels_last":
        layout = ["batch = batch.contiguous(memory_format=torch.channels_last)"]
        tensor.append(block("if batch.dim() == 4 and batch.is_floating_point()", layout))
    body = [
        block("if isinstance(batch, torch.Tensor)", [*tensor, "return batch"]),
        None if source.on_cpu else block('if hasattr(batch, "to")', ["return batch.to(DEVICE)"]),
        block("if isinstance(batch, Mapping)", ["return {key: to_device(value) for key, value in batch.items()}"]),
        block('if isinstance(batch, tuple) and hasattr(batch, "_fields")', [_NAMED]),
        block("if isinstance(batch, tuple | list)", ["return type(batch)(to_device(part) for part in batch)"]),
        "return batch",
    ]
    return function("to_device(batch)", "The same structure; tensors are on the device, in the model's layout.", body)


_NAMED = "return type(batch)(*(to_device(part) for part in batch))"


def _forward(spec: Spec, source: Source, data: DataPiece) -> list[str]:
    """From a micro-batch to `loss`, under autocast where the settings say so."""
    own, unpacked = own_loss(spec), []
    if own is not None:
        loss = f"loss = {own.expression}(model, {'(images, targets)' if data.images else 'batch'})"
    elif data.images:
        loss = "loss = functional.cross_entropy(model(images), targets)"
    else:
        unpacked = ["inputs, targets = batch"]
        loss = "loss = functional.cross_entropy(model(inputs), targets)"
    if source.config.amp_dtype == "none":
        return [*unpacked, loss]
    device = '"cpu"' if source.on_cpu else "DEVICE.type"
    return [*unpacked, block(f"with torch.autocast({device}, dtype={_DTYPES[source.config.amp_dtype]})", [loss])]


def _scaled(loss: str, source: Source) -> str:
    return f"scaler.scale({loss})" if source.config.amp_dtype == "fp16" else loss


def _update(spec: Spec, source: Source, correction: tuple[str, ...] = ()) -> list[str]:
    scaled, clip = source.config.amp_dtype == "fp16", spec.training.clip_grad_norm
    lines = ["scaler.unscale_(optimizer)"] if scaled and (clip is not None or correction) else []
    lines += correction
    if clip is not None:
        lines.append(f"torch.nn.utils.clip_grad_norm_(model.parameters(), {literal(clip)})")
    return [*lines, *(["scaler.step(optimizer)", "scaler.update()"] if scaled else ["optimizer.step()"])]
